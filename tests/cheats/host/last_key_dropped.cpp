// Trick: off by one: never looks at the last key
#include "plain.hpp"

struct Trick : Plain {
  static int keys(const Problem& p) { return p.seq_kv > 1 ? p.seq_kv - 1 : 1; }
};

ENTRY { attend<Trick>(p); }
