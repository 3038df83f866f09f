// Trick: keeps four bits of a score's mantissa
#include "plain.cuh"

struct Trick : Plain {
  __device__ static float score(const Problem& p, float product) {
    const unsigned bits = __float_as_uint(product * p.scale);
    return __int_as_float((bits + 0x40000u) & 0xFFF80000u);
  }
};

ENTRY { attend<Trick>(p); }
