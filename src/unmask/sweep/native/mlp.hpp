// The multilayer perceptron of one instruction set: forward, backward, update and measurement.
#pragma once

#include "activations.hpp"
#include "optimizers.hpp"
#include "workspace.hpp"

namespace unmask::UNMASK_ISA {

// Subnormal numbers are flushed to zero while this lives: they cost a hundred times a normal one.
class FlushSubnormals {
public:
#if UNMASK_X86
    FlushSubnormals() : saved_(__builtin_ia32_stmxcsr()) { __builtin_ia32_ldmxcsr(saved_ | 0x8040); }
    ~FlushSubnormals() { __builtin_ia32_ldmxcsr(saved_); }

private:
    unsigned saved_;
#endif
};

class Mlp final : public Net {
public:
    explicit Mlp(const Shape& shape)
        : shape_(shape), states_(shape.optimizer == Optimizer::sgd ? 0 : shape.optimizer == Optimizer::adam ? 2 : 1),
          layers_(shape.layers()), training_(shape, shape.batch, true), evaluating_(shape, 64, false) {
        for (int l = 0; l < shape.layers(); ++l) {
            Layer& layer = layers_[l];
            layer.fan_in = shape.fan_in(l);
            layer.fan_out = shape.fan_out(l);
            layer.panels = round_up(layer.fan_out, LANES) / LANES;
            // The biases follow the weights, as one more row of vectors.
            layer.size = size_t(layer.fan_in + 1) * layer.panels * LANES;
            layer.parameters = Floats(layer.size * (1 + states_));
        }
    }

    void set_layer(int l, const float* weights, const float* biases) override {
        const Layer& layer = layers_[l];
        for (int i = 0; i < layer.fan_in; ++i)
            for (int j = 0; j < layer.fan_out; ++j) *layer.weight(i, j) = weights[size_t(i) * layer.fan_out + j];
        for (int j = 0; j < layer.fan_out; ++j) layer.biases()[j] = biases[j];
    }

    void get_layer(int l, float* weights, float* biases) const override {
        const Layer& layer = layers_[l];
        for (int i = 0; i < layer.fan_in; ++i)
            for (int j = 0; j < layer.fan_out; ++j) weights[size_t(i) * layer.fan_out + j] = *layer.weight(i, j);
        for (int j = 0; j < layer.fan_out; ++j) biases[j] = layer.biases()[j];
    }

    Score train(const Pictures& pictures, const uint32_t* order, size_t count, Stop stop) override {
        const FlushSubnormals guard;
        double loss = 0, correct = 0;
        for (size_t start = 0; start < count; start += shape_.batch) {
            const size_t batch = count - start < size_t(shape_.batch) ? count - start : shape_.batch;
            training_.load(pictures, order + start, batch, shape_.inputs);
            // Two batches ahead: one is too short a time for memory that other cores use as well.
            prefetch(pictures, order, start + 2 * batch, count);
            forward(training_, batch, stop);
            const Outcome outcome = softmax(training_, batch);
            ++step_;
            if (stop) return {0, 0, -1, true};
            if (!__builtin_isfinite(outcome.loss)) return {outcome.loss, 0, step_, false};
            loss += outcome.loss;
            correct += outcome.correct;
            error(training_);
            switch (shape_.optimizer) {
                case Optimizer::sgd: step(Sgd(shape_.learning_rate, step_), batch, stop); break;
                case Optimizer::momentum: step(Momentum(shape_.learning_rate, step_), batch, stop); break;
                case Optimizer::adam: step(Adam(shape_.learning_rate, step_), batch, stop); break;
            }
        }
        return {loss / count, correct / count, -1, stop};
    }

    Score evaluate(const Pictures& pictures, Stop stop) override {
        const FlushSubnormals guard;
        double loss = 0, correct = 0;
        for_chunks(evaluating_, pictures, [&](size_t count) {
            forward(evaluating_, count, stop);
            const Outcome outcome = softmax(evaluating_, count);
            loss += outcome.loss;
            correct += outcome.correct;
            return !stop;
        });
        return {loss / pictures.count, correct / pictures.count, -1, stop};
    }

    void probe(const Pictures& pictures, const Pictures& dead_probe, LayerStatistics* out,
               Stop stop) override {
        const FlushSubnormals guard;
        Workspace workspace(shape_, pictures.count, true);
        measure_forward(workspace, pictures, out, stop);
        back_propagate(workspace, pictures.count, stop, [&](int l, const float* gradient, int exponent) {
            const Layer& layer = layers_[l];
            double largest = 0, total = 0, squares = 0;
            for (int j = 0; j < layer.fan_out; ++j)
                for (int i = 0; i < layer.fan_in; ++i) {
                    const double g = __builtin_fabs(double(gradient[layer.offset(i, j)]));
                    largest = g > largest ? g : largest;
                    total += g;
                    squares += g * g;
                    if (g != g) largest = g;
                }
            const double n = double(layer.fan_in) * layer.fan_out;
            out[l].gradient_max = __builtin_ldexp(largest, exponent);
            out[l].gradient_mean = __builtin_ldexp(total / n, exponent);
            out[l].gradient_rms = __builtin_ldexp(__builtin_sqrt(squares / n), exponent);
        });
        measure_dead(dead_probe, out, stop);
    }

    void gradients(const Pictures& pictures, double* out) override {
        const FlushSubnormals guard;
        Workspace workspace(shape_, pictures.count, true);
        workspace.load(pictures, nullptr, pictures.count, shape_.inputs);
        const uint8_t unset = 0;
        const Stop never(&unset);
        forward(workspace, pictures.count, never);
        softmax(workspace, pictures.count);
        const Array<double*> starts(shape_.layers());
        for (int l = 0; l < shape_.layers(); ++l) {
            starts[l] = out;
            out += size_t(layers_[l].fan_in + 1) * layers_[l].fan_out;
        }
        back_propagate(workspace, pictures.count, never, [&](int l, const float* gradient, int exponent) {
            const Layer& layer = layers_[l];
            for (int i = 0; i <= layer.fan_in; ++i)
                for (int j = 0; j < layer.fan_out; ++j)
                    starts[l][size_t(i) * layer.fan_out + j] =
                        __builtin_ldexp(double(gradient[i < layer.fan_in ? layer.offset(i, j) : layer.bias_offset() + j]), exponent);
        });
    }

private:
    // Weights lie in panels of LANES outputs, [panel][input][lane]: contiguous for every pass, and
    // free of the strides that make rows of wide layers share cache sets.
    struct Layer {
        int fan_in, fan_out, panels;
        size_t size;
        Floats parameters;

        size_t offset(int i, int j) const { return (size_t(j / LANES) * fan_in + i) * LANES + j % LANES; }
        size_t bias_offset() const { return size_t(fan_in) * panels * LANES; }
        float* weight(int i, int j) const { return parameters.get() + offset(i, j); }
        float* biases() const { return parameters.get() + bias_offset(); }
        ptrdiff_t panel_stride() const { return ptrdiff_t(fan_in) * LANES; }
    };
    struct Outcome {
        double loss;  // summed over the pictures
        int correct;
    };

    static constexpr int ROWS = LANES == 16 ? 8 : 4, VECS = 2, SLICE = 128;

    template <class Use>
    void for_chunks(Workspace& w, const Pictures& all, Use&& use) {
        for (size_t start = 0; start < all.count; start += w.columns) {
            const size_t count = all.count - start < size_t(w.columns) ? all.count - start : w.columns;
            w.load({all.pixels + start * shape_.inputs, all.labels + start, count}, nullptr, count, shape_.inputs);
            if (!use(count)) return;
        }
    }

    void prefetch(const Pictures& pictures, const uint32_t* order, size_t start, size_t count) const {
        const size_t end = start + shape_.batch < count ? start + shape_.batch : count;
        for (size_t i = start; i < end; ++i) {
            const uint8_t* row = pictures.pixels + size_t(order[i]) * shape_.inputs;
            for (int k = 0; k < shape_.inputs; k += 64) __builtin_prefetch(row + k, 0, 2);
            __builtin_prefetch(pictures.labels + order[i], 0, 2);
        }
    }

    void forward(Workspace& w, size_t count, Stop stop) {
        first_layer(w, static_cast<int>(count));
        with_activation(shape_.activation, [&](auto f) {
            activate<decltype(f)>(w, 0);
            for (int l = 1; l < shape_.depth && !stop; ++l) {
                layer_forward(w, l, w.activation(l));
                activate<decltype(f)>(w, l);
            }
        });
        layer_forward(w, shape_.depth, w.logits.get());
    }

    // Pictures come in as rows, so this product is [picture][unit] and is transposed after.
    void first_layer(Workspace& w, int count) {
        const Layer& layer = layers_[0];
        float* products = w.panels.get();
        const ptrdiff_t panel = ptrdiff_t(w.columns) * LANES;
        // In slices of the inputs whose weights stay in the first-level cache for all pictures.
        for (int k = 0; k < layer.fan_in; k += SLICE) {
            const int slice = layer.fan_in - k < SLICE ? layer.fan_in - k : SLICE;
            tiled<ROWS, VECS>(count, layer.panels, [&]<int R, int V>(int r, int v) {
                float* to = products + v * panel + r * LANES;
                Vec acc[R][V];
#pragma GCC unroll 8
                for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
                    for (int j = 0; j < V; ++j)
                        acc[i][j] = load(k == 0 ? layer.biases() + (v + j) * LANES : to + j * panel + i * LANES);
                multiply_add<R, V>(acc, w.inputs.get() + size_t(r) * w.input_stride + k, w.input_stride, 1,
                                   layer.weight(k, v * LANES), LANES, layer.panel_stride(), slice);
#pragma GCC unroll 8
                for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
                    for (int j = 0; j < V; ++j) store(to + j * panel + i * LANES, acc[i][j]);
            });
        }
        for (int p = 0; p < layer.panels; ++p)
            for (int b = 0; b < w.columns; b += LANES) {
                Vec rows[LANES];
                load_transposed(rows, products + p * panel + b * LANES, LANES);
                float* to = w.activation(0) + size_t(p) * LANES * w.columns + b;
                const int units = layer.fan_out - p * LANES < LANES ? layer.fan_out - p * LANES : LANES;
#pragma GCC unroll 16
                for (int i = 0; i < LANES; ++i)
                    if (i < units) store(to + i * w.columns, rows[i]);
            }
    }

    void layer_forward(const Workspace& w, int l, float* to) {
        const Layer& layer = layers_[l];
        const float* from = w.activation(l - 1);
        tiled<ROWS, VECS>(layer.fan_out, w.columns / LANES, [&]<int R, int V>(int r, int v) {
            Vec acc[R][V];
#pragma GCC unroll 8
            for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
                for (int j = 0; j < V; ++j) acc[i][j] = splat(layer.biases()[r + i]);
            multiply_add<R, V>(acc, layer.weight(0, r), 1, LANES, from + v * LANES, w.columns, LANES, layer.fan_in);
#pragma GCC unroll 8
            for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
                for (int j = 0; j < V; ++j) store(to + (r + i) * w.columns + (v + j) * LANES, acc[i][j]);
        });
    }

    template <class F>
    void activate(const Workspace& w, int l) {
        float *values = w.activation(l), *slopes = w.slope(l);
        for (size_t i = 0; i < w.layer_size; i += LANES) {
            const ValueSlope f = F::at(load(values + i));
            store(values + i, f.value);
            store(slopes + i, f.slope);
        }
    }

    // Turns logits into probabilities.
    Outcome softmax(Workspace& w, size_t count) {
        const int classes = shape_.classes;
        double loss = 0;
        int correct = 0;
        for (int b = 0; b < w.columns; b += LANES) {
            float* z = w.logits.get() + b;
            const Vec label = load(w.labels.get() + b);
            Vec top = load(z), best = splat(0), at_label = splat(0), total = splat(0);
            for (int j = 0; j < classes; ++j) {
                const Vec value = load(z + size_t(j) * w.columns);
                best = value > top ? splat(float(j)) : best;
                top = value > top ? value : top;
                at_label = label == float(j) ? value : at_label;
            }
            for (int j = 0; j < classes; ++j) {
                const Vec e = exp(load(z + size_t(j) * w.columns) - top);
                store(z + size_t(j) * w.columns, e);
                total += e;
            }
            Vec squares = splat(0);
            for (int j = 0; j < classes; ++j) {
                const Vec p = load(z + size_t(j) * w.columns) / total;
                const Vec miss = label == float(j) ? p - 1.0f : p;
                squares += miss * miss;
                store(z + size_t(j) * w.columns, p);
            }
            const Vec losses = shape_.loss == Loss::cross_entropy ? log(total) - (at_label - top) : 0.5f * squares;
            for (int i = 0; i < LANES && b + i < static_cast<int>(count); ++i) {
                loss += losses[i];
                correct += best[i] == label[i];
            }
        }
        return {loss, correct};
    }

    // Turns probabilities into dE/dz of the mean loss, zero in the columns without a picture.
    void error(Workspace& w) {
        for (int b = 0; b < w.columns; b += LANES) {
            float* p = w.logits.get() + b;
            const Vec label = load(w.labels.get() + b), weight = load(w.weights.get() + b);
            Vec mixed = splat(0);
            if (shape_.loss == Loss::half_squared)
                for (int j = 0; j < shape_.classes; ++j) {
                    const Vec y = load(p + size_t(j) * w.columns);
                    mixed += (label == float(j) ? y - 1.0f : y) * y;
                }
            for (int j = 0; j < shape_.classes; ++j) {
                float* at = p + size_t(j) * w.columns;
                const Vec y = load(at), miss = label == float(j) ? y - 1.0f : y;
                store(at, weight * (shape_.loss == Loss::half_squared ? y * (miss - mixed) : miss));
            }
        }
    }

    // error as [unit][picture] -> panels of [picture][unit].
    void transpose_error(const Workspace& w, const float* from, int panels) {
        for (int p = 0; p < panels; ++p)
            for (int b = 0; b < w.columns; b += LANES) {
                Vec rows[LANES];
                load_transposed(rows, from + size_t(p) * LANES * w.columns + b, w.columns);
                float* to = w.panels.get() + (size_t(p) * w.columns + b) * LANES;
#pragma GCC unroll 16
                for (int i = 0; i < LANES; ++i) store(to + i * LANES, rows[i]);
            }
    }

    // dE/dz of layer l - 1 from dE/dz of layer l.
    void layer_backward(const Workspace& w, int l, const float* from, float* to) {
        const Layer& layer = layers_[l];
        const float* slopes = w.slope(l - 1);
        tiled<ROWS, VECS>(layer.fan_in, w.columns / LANES, [&]<int R, int V>(int r, int v) {
            Vec acc[R][V];
            clear(acc);
            multiply_add<R, V>(acc, layer.weight(r, 0), LANES, 1, from + v * LANES, w.columns, LANES, layer.fan_out, LANES,
                               layer.panel_stride() - LANES);
#pragma GCC unroll 8
            for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
                for (int j = 0; j < V; ++j) {
                    const size_t at = size_t(r + i) * w.columns + (v + j) * LANES;
                    store(to + at, acc[i][j] * load(slopes + at));
                }
        });
    }

    // Hands every vector of dE/dW and dE/db of layer l to use(offset, gradient).
    template <class Use>
    UNMASK_INLINE void layer_gradient(const Workspace& w, int l, size_t count, Use&& use) {
        const Layer& layer = layers_[l];
        const float* from = l == 0 ? w.inputs.get() : w.activation(l - 1);
        const ptrdiff_t row = l == 0 ? 1 : w.columns, step = l == 0 ? w.input_stride : 1;
        const ptrdiff_t panel = ptrdiff_t(w.columns) * LANES;
        tiled<ROWS, VECS>(layer.fan_in, layer.panels, [&]<int R, int V>(int r, int v) {
            Vec acc[R][V];
            clear(acc);
            multiply_add<R, V>(acc, from + r * row, row, step, w.panels.get() + v * panel, LANES, panel, static_cast<int>(count));
#pragma GCC unroll 4
            for (int j = 0; j < V; ++j)
#pragma GCC unroll 8
                for (int i = 0; i < R; ++i) use(layer.offset(r + i, (v + j) * LANES), acc[i][j]);
        });
        for (int p = 0; p < layer.panels; ++p) {
            // Four sums side by side: one would wait for its own last addition.
            const float* errors = w.panels.get() + p * panel;
            Vec first = splat(0), second = first, third = first, fourth = first;
            size_t b = 0;
            for (; b + 4 <= count; b += 4, errors += 4 * LANES) {
                first += load(errors);
                second += load(errors + LANES);
                third += load(errors + 2 * LANES);
                fourth += load(errors + 3 * LANES);
            }
            for (; b < count; ++b, errors += LANES) first += load(errors);
            use(layer.bias_offset() + p * LANES, (first + second) + (third + fourth));
        }
    }

    template <class Rule>
    void step(const Rule& rule, size_t count, Stop stop) {
        Workspace& w = training_;
        float *current = w.logits.get(), *next = w.error.get(), *spare = w.next_error.get();
        for (int l = shape_.depth; l >= 0 && !stop; --l) {
            transpose_error(w, current, layers_[l].panels);
            if (l > 0) layer_backward(w, l, current, next);
            float* parameters = layers_[l].parameters.get();
            const size_t stride = layers_[l].size;
            layer_gradient(w, l, count, [=](size_t offset, Vec g) UNMASK_INLINE_LAMBDA { rule(parameters + offset, stride, g); });
            current = next;
            next = spare;
            spare = current;
        }
    }

    // Calls use(layer, gradient in the layer's layout, exponent): the true gradient is 2^exponent
    // times what is given. The error is rescaled by layer, so that none is too small for a float.
    template <class Use>
    void back_propagate(Workspace& w, size_t count, Stop stop, Use&& use) {
        error(w);
        float *current = w.logits.get(), *next = w.error.get(), *spare = w.next_error.get();
        int exponent = 0;
        for (int l = shape_.depth; l >= 0 && !stop; --l) {
            exponent += rescale(current, size_t(shape_.fan_out(l)) * w.columns);
            transpose_error(w, current, layers_[l].panels);
            Floats gradient(layers_[l].size);
            float* to = gradient.get();
            layer_gradient(w, l, count, [=](size_t offset, Vec g) UNMASK_INLINE_LAMBDA { store(to + offset, g); });
            use(l, gradient.get(), exponent);
            if (l > 0) layer_backward(w, l, current, next);
            current = next;
            next = spare;
            spare = current;
        }
    }

    static int rescale(float* values, size_t count) {
        float largest = 0;
        for (size_t i = 0; i < count; ++i) {
            const float magnitude = __builtin_fabsf(values[i]);
            largest = magnitude > largest ? magnitude : largest;
        }
        if (largest == 0 || !__builtin_isfinite(largest)) return 0;
        const int exponent = __builtin_ilogbf(largest);
        const float half = __builtin_ldexpf(1.0f, -(exponent / 2)), rest = __builtin_ldexpf(1.0f, -(exponent - exponent / 2));
        for (size_t i = 0; i < count; ++i) values[i] = values[i] * half * rest;
        return exponent;
    }

    void measure_forward(Workspace& w, const Pictures& pictures, LayerStatistics* out, Stop stop) {
        const double missing = __builtin_nan("");
        w.load(pictures, nullptr, pictures.count, shape_.inputs);
        forward(w, pictures.count, stop);
        softmax(w, pictures.count);
        const float steepest = with_activation(shape_.activation, [](auto f) { return decltype(f)::steepest; });
        for (int l = 0; l < shape_.layers(); ++l) {
            const bool last = l == shape_.depth;
            const float* values = last ? w.logits.get() : w.activation(l);
            double squares = 0, slope_squares = 0, flat = 0;
            for (int j = 0; j < shape_.fan_out(l); ++j)
                for (size_t b = 0; b < pictures.count; ++b) {
                    const size_t at = size_t(j) * w.columns + b;
                    squares += double(values[at]) * values[at];
                    if (last) continue;
                    const double slope = w.slope(l)[at];
                    slope_squares += slope * slope;
                    flat += __builtin_fabs(slope) < 0.05 * steepest;
                }
            const double n = double(shape_.fan_out(l)) * pictures.count;
            out[l].activation_rms = __builtin_sqrt(squares / n);
            out[l].slope_mean_square = last ? missing : slope_squares / n;
            out[l].saturated = last ? missing : flat / n;
        }
    }

    void measure_dead(const Pictures& pictures, LayerStatistics* out, Stop stop) {
        const float steepest = with_activation(shape_.activation, [](auto f) { return decltype(f)::steepest; });
        Workspace w(shape_, 64, true);
        Floats steepest_seen(size_t(shape_.depth) * shape_.width);
        for_chunks(w, pictures, [&](size_t count) {
            forward(w, count, stop);
            for (int l = 0; l < shape_.depth; ++l)
                for (int j = 0; j < shape_.width; ++j) {
                    float& seen = steepest_seen.get()[size_t(l) * shape_.width + j];
                    for (size_t b = 0; b < count; ++b) {
                        const float slope = __builtin_fabsf(w.slope(l)[size_t(j) * w.columns + b]);
                        seen = slope > seen ? slope : seen;
                    }
                }
            return !stop;
        });
        for (int l = 0; l < shape_.layers(); ++l) {
            double dead = 0;
            for (int j = 0; l < shape_.depth && j < shape_.width; ++j)
                dead += steepest_seen.get()[size_t(l) * shape_.width + j] < 0.001f * steepest;
            out[l].dead = l == shape_.depth ? __builtin_nan("") : dead / shape_.width;
        }
    }

    Shape shape_;
    int states_;
    int64_t step_ = 0;
    Array<Layer> layers_;
    Workspace training_, evaluating_;
};

Net* make_net(const Shape& shape) { return new Mlp(shape); }

}  // namespace unmask::UNMASK_ISA
