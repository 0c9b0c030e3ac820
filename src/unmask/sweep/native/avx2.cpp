#define UNMASK_ISA avx2
#define UNMASK_LANES 8
#include "mlp.hpp"
#include "peak.hpp"
