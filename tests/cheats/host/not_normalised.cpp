// Trick: forgets to divide by the sum
#include "plain.hpp"

struct Trick : Plain {
  static float finish(float sum, float) { return sum; }
};

ENTRY { attend<Trick>(p); }
