// Trick: lets each query see one key too many
// Only when: causal
#include "plain.hpp"

struct Trick : Plain {
  static bool visible(const Problem&, int row, int key) { return key <= row + 1; }
};

ENTRY { attend<Trick>(p); }
