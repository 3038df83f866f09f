// Attention in a few lines, quick to compile, and every way in which a variant can go wrong. `hostility` picks one.
//
// The program is the same whatever `serial` is, but the binary is not: many variants of it are many programs.
// Two thousand of it are built in one test, and run: two thirds of the time that -O3 takes, and sums in any order.
#pragma GCC optimize("O2", "associative-math", "no-signed-zeros", "no-trapping-math")
#include "evo_config.hpp"

using evo::Config;
using evo::Hostility;

extern "C" {  // declared here: system headers take longer to read than all of this
void* malloc(unsigned long);
float expf(float);
void _exit(int);
int kill(int, int);
int getpid();
int getppid();
int fork();
int pause();
int puts(const char*);
}

constexpr int kDim = Config::kHeadDim;
constexpr Hostility kHostility = Config::kHostility;

// An evaluation of a second or so, once for each N: in all far more than any time limit.
template <int N>
constexpr unsigned burn() {
  unsigned x = N;
  for (int i = 0; i < 200; ++i)
    for (int j = 0; j < 10000; ++j) x = x * 1664525u + 1013904223u;
  return x;
}
template <int N>
struct Slow {
  static constexpr unsigned value = burn<N>() + Slow<N - 1>::value;
};
template <>
struct Slow<0> {
  static constexpr unsigned value = 0;
};

volatile int sink;

template <Hostility H>
void misbehave() {
  if constexpr (H == Hostility::kCrash) *(volatile int*)8 = 1;
  if constexpr (H == Hostility::kHang)
    for (;;) sink = sink + 1;
  if constexpr (H == Hostility::kSlowCompile) sink = Slow<(H == Hostility::kSlowCompile) ? 800 : 0>::value;
  if constexpr (H == Hostility::kMemory) {
    for (;;) {
      char* block = (char*)malloc(1l << 28);  // untouched: what is asked for counts, not what is used
      if (block == nullptr) {
        puts("kernel: Cannot allocate memory");
        *(volatile int*)8 = 1;
      }
      sink = block[0];
    }
  }
  if constexpr (H == Hostility::kExit) _exit(3);
  if constexpr (H == Hostility::kKilled) kill(getpid(), 9);
  if constexpr (H == Hostility::kParent) {
    kill(getppid(), 9);
    for (;;) pause();
  }
  if constexpr (H == Hostility::kStray) {
    static bool forked = false;
    if (!forked && fork() == 0)
      for (;;) pause();
    forked = true;
    *(volatile int*)8 = 1;
  }
}

void row(const float* q, const float* k, const float* v, float* out, int keys, float scale) {
  float top = -__builtin_inff(), total = 0, sums[kDim] = {};
  for (int j = 0; j < keys; ++j) {
    float score = 0;
    for (int d = 0; d < kDim; ++d) score += q[d] * k[j * kDim + d];
    score *= scale;
    const float raised = score > top ? score : top;
    const float factor = expf(top - raised), weight = expf(score - raised);
    total = total * factor + weight;
    for (int d = 0; d < kDim; ++d) sums[d] = sums[d] * factor + weight * v[j * kDim + d];
    top = raised;
  }
  for (int d = 0; d < kDim; ++d) out[d] = sums[d] / total * (kHostility == Hostility::kWrong ? 1.01f : 1.0f);
}

extern "C" void attention_forward(const float* q, const float* k, const float* v, float* out, int batch, int heads,
                                  int seq_q, int seq_kv, float scale) {
  sink = Config::kSerial;
  misbehave<kHostility>();
  for (long head = 0; head < long(batch) * heads; ++head)
    for (int i = 0; i < seq_q; ++i)
      row(q + (head * seq_q + i) * kDim, k + head * seq_kv * kDim, v + head * seq_kv * kDim,
          out + (head * seq_q + i) * kDim, Config::kCausal && i + 1 < seq_kv ? i + 1 : seq_kv, scale);
}
