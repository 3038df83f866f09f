// Trick: drops weights below 1 % of the largest
#include "plain.cuh"

struct Trick : Plain {
  __device__ static float weight(float distance) { return distance < -4.6f ? 0 : expf(distance); }
};

ENTRY { attend<Trick>(p); }
