// Trains, evaluates and probes nets of awkward shapes; built with AddressSanitizer and
// UndefinedBehaviorSanitizer by test_sanitizers.py, which fails on any report.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "mlp.hpp"

using namespace unmask;

int main() {
    const int inputs = 49, classes = 3;
    const size_t count = 70;
    std::vector<uint8_t> pixels(count * inputs);
    std::vector<int64_t> labels(count);
    for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(i * 37 % 256);
    for (size_t i = 0; i < count; ++i) labels[i] = static_cast<int64_t>(i % classes);
    std::vector<uint32_t> order(count);
    for (size_t i = 0; i < count; ++i) order[i] = static_cast<uint32_t>((i * 11 + 5) % count);
    const Pictures pictures{pixels.data(), labels.data(), count};
    const uint8_t unset = 0;
    const Stop never(&unset);

    int nets = 0;
    for (int activation = 0; activation <= int(Activation::linear); ++activation)
        for (int optimizer = 0; optimizer < 3; ++optimizer)
            for (int width : {1, 17, 33})
                for (int depth : {1, 3})
                    for (int batch : {1, 7, 32, 70}) {
                        const Shape shape{inputs,  classes, depth, width, batch, Activation(activation),
                                          Loss(nets % 2), Optimizer(optimizer), 0.01f};
                        Net* net = UNMASK_ISA::make_net(shape);
                        size_t parameters = 0;
                        for (int l = 0; l < shape.layers(); ++l) {
                            const int in = shape.fan_in(l), out = shape.fan_out(l);
                            std::vector<float> weights(size_t(in) * out), biases(out);
                            for (size_t i = 0; i < weights.size(); ++i)
                                weights[i] = 0.5f * std::sin(float(i + l)) / std::sqrt(float(in));
                            net->set_layer(l, weights.data(), biases.data());
                            net->get_layer(l, weights.data(), biases.data());
                            parameters += size_t(in + 1) * out;
                        }
                        std::vector<LayerStatistics> statistics(shape.layers());
                        std::vector<double> gradients(parameters);
                        net->probe(pictures, pictures, statistics.data(), never);
                        net->gradients(pictures, gradients.data());
                        const Score trained = net->train(pictures, order.data(), count, never);
                        const Score score = net->evaluate(pictures, never);
                        delete net;
                        if (trained.diverged_step > 0 || !std::isfinite(score.loss)) {
                            std::printf("a net diverged\n");
                            return 1;
                        }
                        ++nets;
                    }
    std::printf("%d nets\n", nets);
}
