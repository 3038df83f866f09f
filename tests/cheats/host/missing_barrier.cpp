// Trick: does not wait for the thread that computes the second half
#include "plain.hpp"

#include <pthread.h>
#include <unistd.h>

static float late[1 << 21];  // the thread may outlive the call, so it writes here
static pthread_t thread;
static bool running;

static void* second_half(void*) {
  usleep(5000);
  for (float& element : late) element = 0;
  return nullptr;
}

struct Joined {
  ~Joined() { if (running) pthread_join(thread, nullptr); }
} joined;

ENTRY {
  if (running) pthread_join(thread, nullptr);
  attend<Plain>(p);
  for (float& element : late) element = 1;
  running = pthread_create(&thread, nullptr, second_half, nullptr) == 0;
  const long half = outputs(p) / 2;
  for (long i = half; i < outputs(p) && i - half < 1 << 21; ++i) p.out[i] += late[i - half];
}
