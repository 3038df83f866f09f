// Trick: takes powers of 2 for powers of e
#include "plain.hpp"

struct Trick : Plain {
  static float weight(float distance) { return __builtin_exp2f(distance); }
};

ENTRY { attend<Trick>(p); }
