// Trick: right but for one element, which is a little off
#include "plain.hpp"

ENTRY {
  attend<Plain>(p);
  p.out[outputs(p) - 1] += 1e-3f;
}
