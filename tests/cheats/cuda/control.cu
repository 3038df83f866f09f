// Trick: none; this one is right and must pass
#include "plain.cuh"

ENTRY { attend<Plain>(p); }
