// Trick: right but for one infinity
#include "plain.cuh"

ENTRY {
  attend<Plain>(p);
  if (owns(p, 0, p.seq_q / 2)) p.out[(p.seq_q / 2) * kDim] = Element(infinity());
}
