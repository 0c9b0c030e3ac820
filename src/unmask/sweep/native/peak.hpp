// How fast one core can multiply and add: the ceiling that the benchmarks compare with.
#pragma once

#include <ctime>

#include "simd.hpp"

namespace unmask::UNMASK_ISA {

inline double seconds_now() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

double peak_flops() {
    constexpr int CHAINS = 12;  // enough to hide the latency, few enough for 16 registers
    constexpr long ROUNDS = 1 << 22;
    Vec chain[CHAINS];
    for (int i = 0; i < CHAINS; ++i) chain[i] = splat(0.001f * float(i));
    double best = 0;
    for (int repeat = 0; repeat < 20; ++repeat) {
        const double begun = seconds_now();
        for (long round = 0; round < ROUNDS; ++round)
#pragma GCC unroll 12
            for (int i = 0; i < CHAINS; ++i) chain[i] = chain[i] * 0.999f + 0.001f;
        // Reading the chains keeps the loop from being removed.
        float total = 0;
        for (int i = 0; i < CHAINS; ++i) total += chain[i][0];
        const double seconds = seconds_now() - begun;
        const double rate = 2.0 * LANES * CHAINS * ROUNDS / seconds;
        if (total == total && rate > best) best = rate;
    }
    return best;
}

}  // namespace unmask::UNMASK_ISA
