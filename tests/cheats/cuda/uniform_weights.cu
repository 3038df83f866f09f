// Trick: gives every key the same weight: the mean of V
#include "plain.cuh"

struct Trick : Plain {
  __device__ static float weight(float) { return 1; }
};

ENTRY { attend<Trick>(p); }
