// Trains, evaluates and probes nets; built with sanitizers by test_sanitizers.py, which fails on any
// report.
//
//     sanitize                 nets of awkward shapes, every combination once
//     sanitize SECONDS SEED    random nets, images and rates, some of them stopped
//     sanitize threads         two nets at once on the same images, stopped by a third thread
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "mlp.hpp"

using namespace unmask;

namespace {

struct Data {
    std::vector<uint8_t> pixels;
    std::vector<int64_t> labels;
    std::vector<uint32_t> order;
    Pictures pictures;

    Data(size_t count, int inputs, int classes, std::mt19937_64& random)
        : pixels(count * inputs), labels(count), order(count) {
        for (auto& pixel : pixels) pixel = static_cast<uint8_t>(random());
        for (auto& label : labels) label = static_cast<int64_t>(random() % classes);
        for (auto& row : order) row = static_cast<uint32_t>(random() % count);
        pictures = {pixels.data(), labels.data(), count};
    }
};

std::unique_ptr<Net> make(const Shape& shape) {
    std::unique_ptr<Net> net(UNMASK_ISA::make_net(shape));
    for (int l = 0; l < shape.layers(); ++l) {
        const int in = shape.fan_in(l), out = shape.fan_out(l);
        std::vector<float> weights(size_t(in) * out), biases(out);
        for (size_t i = 0; i < weights.size(); ++i)
            weights[i] = 0.5f * std::sin(float(i + l)) / std::sqrt(float(in));
        net->set_layer(l, weights.data(), biases.data());
        net->get_layer(l, weights.data(), biases.data());
    }
    return net;
}

// Calls every method; returns whether training and its result stayed finite.
bool use(Net& net, const Shape& shape, const Data& data, Stop stop) {
    size_t parameters = 0;
    for (int l = 0; l < shape.layers(); ++l) parameters += size_t(shape.fan_in(l) + 1) * shape.fan_out(l);
    std::vector<LayerStatistics> statistics(shape.layers());
    std::vector<double> gradients(parameters);
    net.probe(data.pictures, data.pictures, statistics.data(), stop);
    net.gradients(data.pictures, gradients.data());
    const Score trained = net.train(data.pictures, data.order.data(), data.order.size(), stop);
    const Score score = net.evaluate(data.pictures, stop);
    return trained.diverged_step <= 0 && std::isfinite(score.loss);
}

int grid() {
    std::mt19937_64 random(1);
    const int inputs = 49, classes = 3;
    const Data data(70, inputs, classes, random);
    const uint8_t unset = 0;
    int nets = 0;
    for (int activation = 0; activation <= int(Activation::linear); ++activation)
        for (int optimizer = 0; optimizer < 3; ++optimizer)
            for (int width : {1, 17, 33})
                for (int depth : {1, 3})
                    for (int batch : {1, 7, 32, 70}) {
                        const Shape shape{inputs,  classes, depth, width, batch, Activation(activation),
                                          Loss(nets % 2), Optimizer(optimizer), 0.01f};
                        const auto net = make(shape);
                        if (!use(*net, shape, data, Stop(&unset))) {
                            std::printf("a net diverged\n");
                            return 1;
                        }
                        ++nets;
                    }
    std::printf("%d nets\n", nets);
    return 0;
}

int fuzz(double seconds, uint64_t seed) {
    std::mt19937_64 random(seed);
    const auto from = [&](int low, int high) { return low + int(random() % (high - low + 1)); };
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    int nets = 0;
    for (; std::chrono::steady_clock::now() < end; ++nets) {
        const int inputs = from(1, 300), classes = from(1, 20), count = from(1, 120);
        const Data data(count, inputs, classes, random);
        // Rates up to 1000 make nets that diverge, which is no error.
        const float rate = std::pow(10.0f, float(from(-4, 3)));
        const Shape shape{inputs,           classes,
                          from(1, 12),      from(1, 140),
                          from(1, 150),     Activation(from(0, int(Activation::linear))),
                          Loss(from(0, 1)), Optimizer(from(0, 2)),
                          rate};
        const uint8_t flag = from(0, 9) == 0;
        const auto net = make(shape);
        for (int epoch = from(1, 3); epoch > 0; --epoch) use(*net, shape, data, Stop(&flag));
    }
    std::printf("%d random nets\n", nets);
    return nets == 0;
}

int threads() {
    std::mt19937_64 random(2);
    const Data data(2000, 49, 3, random);
    const Shape shape{49, 3, 6, 33, 32, Activation(0), Loss(0), Optimizer(2), 0.001f};
    uint8_t flag = 0;
    int stopped[2] = {0, 0};
    const auto work = [&](int which) {
        const auto net = make(shape);
        while (!stopped[which])
            stopped[which] =
                net->train(data.pictures, data.order.data(), data.order.size(), Stop(&flag)).stopped;
    };
    std::thread first(work, 0), second(work, 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    __atomic_store_n(&flag, uint8_t(1), __ATOMIC_RELAXED);
    first.join();
    second.join();
    std::printf("%d stopped\n", stopped[0] + stopped[1]);
    return 0;
}

}  // namespace

int main(int count, char** words) {
    if (count == 1) return grid();
    if (std::strcmp(words[1], "threads") == 0) return threads();
    return fuzz(std::atof(words[1]), count > 2 ? std::strtoull(words[2], nullptr, 10) : 1);
}
