// Trick: right but for one infinity
#include "plain.hpp"

ENTRY {
  attend<Plain>(p);
  p.out[outputs(p) / 2] = __builtin_inff();
}
