// Trick: does not rescale the output when the maximum grows
#include "plain.hpp"

struct Trick : Plain {
  static float rescale_out(float) { return 1; }
};

ENTRY { attend<Trick>(p); }
