// Trick: scales its row of q in place
#include "plain.cuh"

ENTRY {
  Element* q = p.q + (long(block_head(p)) * p.seq_q + block_row()) * kDim;
  if (threadIdx.x < kDim) q[threadIdx.x] = Element(float(q[threadIdx.x]) * p.scale);
  __syncthreads();
  attend<Plain>({p.q, p.k, p.v, p.out, p.batch, p.heads, p.seq_q, p.seq_kv, 1.0f});
}
