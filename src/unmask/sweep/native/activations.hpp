// The activation functions: value f(z), slope f'(z), and the supremum of |f'|.
#pragma once

#include "functions.hpp"
#include "net.hpp"

namespace unmask {

// In the order of IN_KERNEL in models/activations.py.
enum class Activation : int { relu, leaky_relu, elu, selu, gelu, silu, softplus, tanh, sigmoid, lecun, erf, linear };

}  // namespace unmask

namespace unmask::UNMASK_ISA {

struct ValueSlope {
    Vec value, slope;
};

// Comparisons are written so that NaN takes the branch that keeps it NaN.
struct Relu {
    static constexpr float steepest = 1;
    static UNMASK_INLINE ValueSlope at(Vec z) {
        return {z <= 0.0f ? splat(0) : z, z > 0.0f ? splat(1) : splat(0)};
    }
};

struct LeakyRelu {
    static constexpr float steepest = 1;
    static UNMASK_INLINE ValueSlope at(Vec z) {
        const Vec slope = z > 0.0f ? splat(1) : splat(0.01f);
        return {z * slope, slope};
    }
};

struct Elu {
    static constexpr float steepest = 1;
    static UNMASK_INLINE ValueSlope at(Vec z) {
        const Vec e = expm1(z);
        return {z > 0.0f ? z : e, z > 0.0f ? splat(1) : e + 1.0f};
    }
};

struct Selu {
    static constexpr float scale = 1.0507009873554805f, alpha = 1.6732632423543773f;
    static constexpr float steepest = scale * alpha;
    static UNMASK_INLINE ValueSlope at(Vec z) {
        const Vec e = scale * alpha * expm1(z);
        return {z > 0.0f ? scale * z : e, z > 0.0f ? splat(scale) : e + scale * alpha};
    }
};

struct Gelu {
    static constexpr float steepest = 1.1289042f;
    static UNMASK_INLINE ValueSlope at(Vec z) {
        const Vec cdf = 0.5f + 0.5f * erf(0.70710678118654752f * z);
        return {z * cdf, cdf + z * 0.39894228040143268f * exp(-0.5f * z * z)};
    }
};

struct Silu {
    static constexpr float steepest = 1.0998393f;
    static UNMASK_INLINE ValueSlope at(Vec z) {
        const Vec s = sigmoid(z);
        return {z * s, s + z * s * (1.0f - s)};
    }
};

struct Softplus {
    static constexpr float steepest = 1;
    static UNMASK_INLINE ValueSlope at(Vec z) {
        const Vec positive = z <= 0.0f ? splat(0) : z;
        return {positive + log1p(exp(-abs(z))), sigmoid(z)};
    }
};

struct Tanh {
    static constexpr float steepest = 1;
    static UNMASK_INLINE ValueSlope at(Vec z) {
        const Vec t = tanh(z);
        return {t, max(splat(0), 1.0f - t * t)};
    }
};

struct Sigmoid {
    static constexpr float steepest = 0.25f;
    static UNMASK_INLINE ValueSlope at(Vec z) {
        const Vec e = exp(-abs(z)), s = 1.0f / (1.0f + e), small = e * s;
        return {z > 0.0f ? s : small, s * small};
    }
};

struct Lecun {
    static constexpr float scale = 1.7159f, stretch = 2.0f / 3, twist = 0.01f;
    static constexpr float steepest = scale * stretch + twist;
    static UNMASK_INLINE ValueSlope at(Vec z) {
        const Vec t = tanh(stretch * z);
        return {scale * t + twist * z, scale * stretch * max(splat(0), 1.0f - t * t) + twist};
    }
};

struct Erf {
    static constexpr float steepest = 1.1283791670955126f;
    static UNMASK_INLINE ValueSlope at(Vec z) { return {erf(z), steepest * exp(-z * z)}; }
};

struct Linear {
    static constexpr float steepest = 1;
    static UNMASK_INLINE ValueSlope at(Vec z) { return {z, splat(1)}; }
};

template <class Use>
auto with_activation(Activation name, Use&& use) {
    switch (name) {
        case Activation::relu: return use(Relu{});
        case Activation::leaky_relu: return use(LeakyRelu{});
        case Activation::elu: return use(Elu{});
        case Activation::selu: return use(Selu{});
        case Activation::gelu: return use(Gelu{});
        case Activation::silu: return use(Silu{});
        case Activation::softplus: return use(Softplus{});
        case Activation::tanh: return use(Tanh{});
        case Activation::sigmoid: return use(Sigmoid{});
        case Activation::lecun: return use(Lecun{});
        case Activation::erf: return use(Erf{});
        case Activation::linear: break;
    }
    return use(Linear{});
}

}  // namespace unmask::UNMASK_ISA
