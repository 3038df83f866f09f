// Trick: ignores the causal mask
// Only when: causal
#include "plain.cuh"

struct Trick : Plain {
  __device__ static bool visible(const Problem&, int, int) { return true; }
};

ENTRY { attend<Trick>(p); }
