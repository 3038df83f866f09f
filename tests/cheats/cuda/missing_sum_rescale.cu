// Trick: does not rescale the sum when the maximum grows
#include "plain.cuh"

struct Trick : Plain {
  __device__ static float rescale_sum(float) { return 1; }
};

ENTRY { attend<Trick>(p); }
