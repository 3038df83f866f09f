// Trick: ignores the last tile of keys
#include "plain.cuh"

struct Trick : Plain {
  __device__ static int keys(const Problem& p) { return p.seq_kv > kTile ? p.seq_kv - kTile : p.seq_kv; }
};

ENTRY { attend<Trick>(p); }
