// Trick: reads K where V belongs and V where K belongs
#include "plain.hpp"

ENTRY { attend<Plain>({p.q, p.v, p.k, p.out, p.batch, p.heads, p.seq_q, p.seq_kv, p.scale}); }
