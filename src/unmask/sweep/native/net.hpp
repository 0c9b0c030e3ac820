// What a compiled instruction set offers: one multilayer perceptron, trained, measured, read out.
#pragma once

#include <cstddef>
#include <cstdint>

namespace unmask {

enum class Activation : int;  // listed in activations.hpp, where each is written
enum class Loss { cross_entropy, half_squared };
enum class Optimizer { sgd, momentum, adam };

struct Shape {
    int inputs, classes, depth, width, batch;
    Activation activation;
    Loss loss;
    Optimizer optimizer;
    float learning_rate;

    int layers() const { return depth + 1; }
    int fan_in(int layer) const { return layer == 0 ? inputs : width; }
    int fan_out(int layer) const { return layer == depth ? classes : width; }
};

// Pictures as rows of bytes; a byte b means the input b / 255.
struct Pictures {
    const uint8_t* pixels;
    const int64_t* labels;
    size_t count;
};

struct Score {
    double loss, accuracy;
    int64_t diverged_step;  // counted from 1 over the net's life, -1 when the loss stayed finite
    bool stopped;
};

// Per layer, in the order of LAYER_STATISTICS in history.py.
struct LayerStatistics {
    double gradient_max, gradient_mean, gradient_rms, activation_rms, slope_mean_square, saturated, dead;
};

// A byte that another thread sets to 1 to end the work. std::atomic_ref is no alternative here: its
// inline code would be compiled for one instruction set and could be linked into another.
class Stop {
public:
    explicit Stop(const uint8_t* flag) : flag_(flag) {}
    operator bool() const { return __atomic_load_n(flag_, __ATOMIC_RELAXED) != 0; }

private:
    const uint8_t* flag_;
};

class Net {
public:
    virtual ~Net() = default;
    // weights[fan_in][fan_out] and biases[fan_out], row-major.
    virtual void set_layer(int layer, const float* weights, const float* biases) = 0;
    virtual void get_layer(int layer, float* weights, float* biases) const = 0;
    virtual Score train(const Pictures&, const uint32_t* order, size_t count, Stop stop) = 0;
    virtual Score evaluate(const Pictures&, Stop stop) = 0;
    virtual void probe(const Pictures&, const Pictures& dead_probe, LayerStatistics* out, Stop stop) = 0;
    // Every layer's dE/dW and dE/db, end to end: double[fan_in][fan_out], then double[fan_out].
    virtual void gradients(const Pictures&, double* out) = 0;
};

namespace baseline {
Net* make_net(const Shape&);
double peak_flops();
}
namespace avx2 {
Net* make_net(const Shape&);
double peak_flops();
}
namespace avx512 {
Net* make_net(const Shape&);
double peak_flops();
}

}  // namespace unmask
