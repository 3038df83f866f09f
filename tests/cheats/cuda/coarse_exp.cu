// Trick: takes the exponential from the bits of a float (Schraudolph): 3 % off
#include "plain.cuh"

struct Trick : Plain {
  __device__ static float weight(float distance) {
    return distance < -80 ? 0 : __int_as_float(int(12102203.0f * distance) + 1064866805);
  }
};

ENTRY { attend<Trick>(p); }
