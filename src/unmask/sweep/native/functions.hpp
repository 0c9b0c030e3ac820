// exp, expm1, log, tanh and erf on vectors, to a few units in the last place; NaN stays NaN.
#pragma once

#include "simd.hpp"

namespace unmask::UNMASK_ISA {

UNMASK_INLINE Vec clamp(Vec x, float low, float high) { return min(splat(high), max(splat(low), x)); }

template <int N>
UNMASK_INLINE Vec polynomial(Vec x, const float (&c)[N]) {
    Vec y = splat(c[N - 1]);
#pragma GCC unroll 16
    for (int i = N - 2; i >= 0; --i) y = y * x + c[i];
    return y;
}

// x = n ln 2 + r with |r| <= ln(2) / 2: gives 2^n and e^r - 1.
struct Reduced {
    Vec power, rest;
};

UNMASK_INLINE Reduced reduce(Vec x) {
    constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
    x = clamp(x, -87.0f, 88.0f);
    const Vec shifted = x * 1.44269504088896341f + round;
    const Vec n = shifted - round;
    const Vec r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    const Vec power = reinterpret_cast<Vec>((reinterpret_cast<IVec>(shifted) << 23) + 0x3f800000);
    const float c[] = {0.5f, 1.0f / 6, 1.0f / 24, 1.0f / 120, 1.0f / 720, 1.0f / 5040};
    return {power, r * r * polynomial(r, c) + r};
}

UNMASK_INLINE Vec exp(Vec x) {
    const Reduced e = reduce(x);
    return e.power * e.rest + e.power;
}

UNMASK_INLINE Vec expm1(Vec x) {
    const Reduced e = reduce(x);
    return e.power * e.rest + (e.power - 1.0f);
}

// For positive, normal x.
UNMASK_INLINE Vec log(Vec x) {
    const IVec bits = reinterpret_cast<IVec>(x);
    const IVec exponent = (bits - 0x3f3504f3) >> 23;  // x = 2^exponent m, m in [sqrt(1/2), sqrt(2))
    const Vec f = reinterpret_cast<Vec>(bits - (exponent << 23)) - 1.0f;
    const Vec s = f / (f + 2.0f), s2 = s * s;  // log(1 + f) = 2 atanh(s)
    const float c[] = {2.0f / 3, 2.0f / 5, 2.0f / 7, 2.0f / 9, 2.0f / 11};
    const Vec n = from_int(exponent);
    const Vec y = (2.0f * s + s * s2 * polynomial(s2, c)) + n * -2.12194440e-4f + n * 0.693359375f;
    return x == x ? y : x;
}

// For x in [0, 1]; the quotient restores what 1 + x rounds away.
UNMASK_INLINE Vec log1p(Vec x) {
    const Vec u = 1.0f + x;
    return log(u) + (x - (u - 1.0f)) / u;
}

// Odd rational functions, minimax in relative error on the interval of the clamp (both below 3e-8).
UNMASK_INLINE Vec tanh(Vec x) {
    const float p[] = {1.0f, 0.13381023705005646f, 0.0034955863375216722f, 2.0609053535736166e-05f,
                       1.3354625849615331e-08f};
    const float q[] = {1.0f, 0.46714338660240173f, 0.025876974686980247f, 0.00032856318284757435f,
                       7.776542929605057e-07f};
    x = clamp(x, -9.0f, 9.0f);
    const Vec x2 = x * x;
    return x * polynomial(x2, p) / polynomial(x2, q);
}

UNMASK_INLINE Vec erf(Vec x) {
    const float p[] = {1.1283791065216064f,    0.18966631591320038f,    0.05266803130507469f,
                       0.0037383295129984617f, 0.00028506270609796047f, 2.066487468255218e-06f};
    const float q[] = {1.0f,                  0.5014201998710632f,    0.11381876468658447f,
                       0.01491424161940813f,  0.0011573738884180784f, 3.827019827440381e-05f};
    x = clamp(x, -3.9f, 3.9f);
    const Vec x2 = x * x;
    return x * polynomial(x2, p) / polynomial(x2, q);
}

UNMASK_INLINE Vec sigmoid(Vec x) { return 1.0f / (1.0f + exp(-x)); }

}  // namespace unmask::UNMASK_ISA
