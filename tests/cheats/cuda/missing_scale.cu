// Trick: forgets the scale
#include "plain.cuh"

struct Trick : Plain {
  __device__ static float score(const Problem&, float product) { return product; }
};

ENTRY { attend<Trick>(p); }
