// The arrays one pass of a net needs: inputs, activations, slopes, errors.
#pragma once

#include "memory.hpp"
#include "net.hpp"
#include "simd.hpp"

namespace unmask::UNMASK_ISA {

// Activations and errors are stored as [unit][picture], so that a vector holds one unit's values
// for LANES pictures. Only the weight gradient wants errors as [picture][unit]: they are kept a
// second time, transposed, in panels of LANES units.
struct Workspace {
    int columns;      // pictures, rounded up to whole vectors
    int input_stride; // an odd number of cache lines, so that rows do not share cache sets
    int hidden, outputs;
    bool keeps_layers;
    size_t layer_size;
    Floats inputs, activations, slopes, logits, error, next_error, panels;
    Floats labels, weights;

    Workspace(const Shape& s, int pictures, bool keep)
        : columns(round_up(pictures, LANES)),
          input_stride((round_up(s.inputs, 16) / 16 | 1) * 16),
          hidden(round_up(s.width, LANES)),
          outputs(round_up(s.classes, LANES)),
          keeps_layers(keep),
          layer_size(size_t(s.width) * columns),
          inputs(size_t(columns) * input_stride),
          activations((keep ? s.depth : 2) * layer_size),
          slopes((keep ? s.depth : 1) * layer_size),
          logits(size_t(outputs) * columns),
          error(size_t(keep ? hidden : 0) * columns),
          next_error(size_t(keep ? hidden : 0) * columns),
          panels(size_t(hidden > outputs ? hidden : outputs) * columns),
          labels(columns),
          weights(columns) {}

    float* activation(int layer) const {
        return activations.get() + (keeps_layers ? layer : layer % 2) * layer_size;
    }
    float* slope(int layer) const { return slopes.get() + (keeps_layers ? layer : 0) * layer_size; }

    // Row i of the pass is picture order[i], or picture i without an order.
    void load(const Pictures& from, const uint32_t* order, size_t count, int features) {
        for (size_t i = 0; i < count; ++i) {
            const size_t picture = order ? order[i] : i;
            const uint8_t* bytes = from.pixels + picture * features;
            float* __restrict__ row = inputs.get() + i * input_stride;
            for (int k = 0; k < features; ++k) row[k] = bytes[k] * (1.0f / 255.0f);
            labels.get()[i] = static_cast<float>(from.labels[picture]);
        }
        for (int i = 0; i < columns; ++i)
            weights.get()[i] = i < static_cast<int>(count) ? 1.0f / static_cast<float>(count) : 0.0f;
    }
};

}  // namespace unmask::UNMASK_ISA
