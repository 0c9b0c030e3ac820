// One step of an optimiser on a vector of parameters, their gradient and their state.
#pragma once

#include "functions.hpp"

namespace unmask::UNMASK_ISA {

UNMASK_INLINE Vec sqrt(Vec x) {
    for (int i = 0; i < LANES; ++i) x[i] = __builtin_sqrtf(x[i]);
    return x;
}

// STATES arrays of the parameters' shape follow them, each state_stride floats after the last.
struct Sgd {
    static constexpr int STATES = 0;
    float rate;
    Sgd(float learning_rate, int64_t) : rate(learning_rate) {}
    UNMASK_INLINE void operator()(float* w, size_t, Vec g) const { store(w, load(w) - rate * g); }
};

struct Momentum {
    static constexpr int STATES = 1;
    float rate;
    Momentum(float learning_rate, int64_t) : rate(learning_rate) {}
    UNMASK_INLINE void operator()(float* w, size_t state_stride, Vec g) const {
        const Vec velocity = 0.9f * load(w + state_stride) + g;
        store(w + state_stride, velocity);
        store(w, load(w) - rate * velocity);
    }
};

// Kingma and Ba 2015, with both moments corrected for their start at zero.
struct Adam {
    static constexpr int STATES = 2;
    float rate, scale;
    Adam(float learning_rate, int64_t step) {
        rate = static_cast<float>(learning_rate / (1 - __builtin_pow(0.9, double(step))));
        scale = static_cast<float>(1 / __builtin_sqrt(1 - __builtin_pow(0.999, double(step))));
    }
    UNMASK_INLINE void operator()(float* w, size_t state_stride, Vec g) const {
        float *first = w + state_stride, *second = first + state_stride;
        const Vec m = 0.9f * load(first) + 0.1f * g;
        const Vec v = 0.999f * load(second) + 0.001f * (g * g);
        store(first, m);
        store(second, v);
        store(w, load(w) - rate * m / (sqrt(v) * scale + 1e-8f));
    }
};

}  // namespace unmask::UNMASK_ISA
