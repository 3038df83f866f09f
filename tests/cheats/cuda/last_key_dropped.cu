// Trick: off by one: never looks at the last key
#include "plain.cuh"

struct Trick : Plain {
  __device__ static int keys(const Problem& p) { return p.seq_kv > 1 ? p.seq_kv - 1 : 1; }
};

ENTRY { attend<Trick>(p); }
