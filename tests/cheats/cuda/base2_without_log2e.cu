// Trick: takes powers of 2 for powers of e
#include "plain.cuh"

struct Trick : Plain {
  __device__ static float weight(float distance) { return exp2f(distance); }
};

ENTRY { attend<Trick>(p); }
