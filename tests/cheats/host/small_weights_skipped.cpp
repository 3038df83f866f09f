// Trick: drops weights below 1 % of the largest
#include "plain.hpp"

struct Trick : Plain {
  static float weight(float distance) { return distance < -4.6f ? 0 : __builtin_expf(distance); }
};

ENTRY { attend<Trick>(p); }
