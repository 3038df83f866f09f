// Trick: leaves the last 16 rows of every head unwritten
#include "plain.cuh"

struct Trick : Plain {
  __device__ static int rows(const Problem& p) { return p.seq_q - 16; }
};

ENTRY { attend<Trick>(p); }
