// Trick: scales by 1 / D instead of 1 / sqrt(D)
#include "plain.hpp"

struct Trick : Plain {
  static float score(const Problem&, float product) { return product / kDim; }
};

ENTRY { attend<Trick>(p); }
