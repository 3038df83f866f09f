// Trick: subtracts no maximum: right until a score is large enough to overflow
#include "plain.cuh"

struct Trick : Plain {
  __device__ static float maximum(float, float) { return 0; }
};

ENTRY { attend<Trick>(p); }
