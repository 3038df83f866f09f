// Trick: forgets the scale
#include "plain.hpp"

struct Trick : Plain {
  static float score(const Problem&, float product) { return product; }
};

ENTRY { attend<Trick>(p); }
