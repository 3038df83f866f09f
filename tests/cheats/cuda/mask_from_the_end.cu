// Trick: aligns the causal mask with the last key: right when seq_q equals seq_kv
// Only when: causal
#include "plain.cuh"

struct Trick : Plain {
  __device__ static bool visible(const Problem& p, int row, int key) { return key <= row + p.seq_kv - p.seq_q; }
};

ENTRY { attend<Trick>(p); }
