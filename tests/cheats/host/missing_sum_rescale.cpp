// Trick: does not rescale the sum when the maximum grows
#include "plain.hpp"

struct Trick : Plain {
  static float rescale_sum(float) { return 1; }
};

ENTRY { attend<Trick>(p); }
