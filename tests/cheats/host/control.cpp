// Trick: none; this one is right and must pass
#include "plain.hpp"

ENTRY { attend<Plain>(p); }
