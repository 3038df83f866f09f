// Trick: ignores the causal mask
// Only when: causal
#include "plain.hpp"

struct Trick : Plain {
  static bool visible(const Problem&, int, int) { return true; }
};

ENTRY { attend<Trick>(p); }
