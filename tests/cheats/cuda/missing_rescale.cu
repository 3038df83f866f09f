// Trick: does not rescale the output when the maximum grows
#include "plain.cuh"

struct Trick : Plain {
  __device__ static float rescale_out(float) { return 1; }
};

ENTRY { attend<Trick>(p); }
