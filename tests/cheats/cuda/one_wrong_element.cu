// Trick: right but for one element, which is a little off
#include "plain.cuh"

ENTRY {
  attend<Plain>(p);
  if (owns(p, 0, p.seq_q / 2)) p.out[(p.seq_q / 2) * kDim] = Element(float(p.out[(p.seq_q / 2) * kDim]) + 0.03f);
}
