// Trick: every head reads the keys and values of the first
#include "plain.hpp"

struct Trick : Plain {
  static long key_offset(const Problem&, int) { return 0; }
};

ENTRY { attend<Trick>(p); }
