// Trick: right, and writes one element before the output
#include "plain.cuh"

ENTRY {
  attend<Plain>(p);
  if (owns(p, 0, 0)) p.out[-1] = Element(0.0f);
}
