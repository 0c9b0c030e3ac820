#define UNMASK_ISA avx512
#define UNMASK_LANES 16
#include "mlp.hpp"
#include "peak.hpp"
