// Trick: gives every key the same weight: the mean of V
#include "plain.hpp"

struct Trick : Plain {
  static float weight(float) { return 1; }
};

ENTRY { attend<Trick>(p); }
