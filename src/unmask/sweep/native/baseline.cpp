#define UNMASK_ISA baseline
#define UNMASK_LANES 4
#include "mlp.hpp"
#include "peak.hpp"
