// Trick: takes the exponential from the bits of a float (Schraudolph): 3 % off
#include "plain.hpp"

struct Trick : Plain {
  static float weight(float distance) {
    return distance < -80 ? 0 : __builtin_bit_cast(float, int(12102203.0f * distance) + 1064866805);
  }
};

ENTRY { attend<Trick>(p); }
