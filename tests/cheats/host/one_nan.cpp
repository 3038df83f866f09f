// Trick: right but for one NaN
#include "plain.hpp"

ENTRY {
  attend<Plain>(p);
  p.out[outputs(p) / 2] = __builtin_nanf("");
}
