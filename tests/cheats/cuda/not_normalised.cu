// Trick: forgets to divide by the sum
#include "plain.cuh"

struct Trick : Plain {
  __device__ static float finish(float sum, float) { return sum; }
};

ENTRY { attend<Trick>(p); }
