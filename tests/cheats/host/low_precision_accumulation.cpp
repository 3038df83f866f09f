// Trick: accumulates with the mantissa of a bfloat16
#include "plain.hpp"

struct Trick : Plain {
  static float accumulate(float sum, float weight, float value) {
    const unsigned bits = __builtin_bit_cast(unsigned, sum + weight * value);
    return __builtin_bit_cast(float, (bits + 0x8000u) & 0xFFFF0000u);
  }
};

ENTRY { attend<Trick>(p); }
