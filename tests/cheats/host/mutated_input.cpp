// Trick: scales q in place
#include "plain.hpp"

ENTRY {
  for (long i = 0; i < outputs(p); ++i) p.q[i] *= p.scale;
  attend<Plain>({p.q, p.k, p.v, p.out, p.batch, p.heads, p.seq_q, p.seq_kv, 1});
}
