// Trick: subtracts no maximum: right until a score is large enough to overflow
#include "plain.hpp"

struct Trick : Plain {
  static float maximum(float, float) { return 0; }
};

ENTRY { attend<Trick>(p); }
