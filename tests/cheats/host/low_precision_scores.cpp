// Trick: rounds scores to the mantissa of a half
#include "plain.hpp"

struct Trick : Plain {
  static float score(const Problem& p, float product) {
    const unsigned bits = __builtin_bit_cast(unsigned, product * p.scale);
    return __builtin_bit_cast(float, (bits + 0x1000u) & 0xFFFFE000u);
  }
};

ENTRY { attend<Trick>(p); }
