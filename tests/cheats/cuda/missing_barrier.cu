// Trick: does not wait until the other warps have written their scores
#include "plain.cuh"

struct Trick : Plain {
  __device__ static void wait() {}
  // The second half of the warps is late, as it may be at any time.
  __device__ static float score(const Problem& p, float product) {
    if (threadIdx.x >= kThreads / 2) __nanosleep(20000);
    return Plain::score(p, product);
  }
};

ENTRY { attend<Trick>(p); }
