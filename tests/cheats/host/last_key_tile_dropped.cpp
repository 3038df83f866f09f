// Trick: ignores the last tile of keys
#include "plain.hpp"

struct Trick : Plain {
  static int keys(const Problem& p) { return p.seq_kv > kTile ? p.seq_kv - kTile : p.seq_kv; }
};

ENTRY { attend<Trick>(p); }
