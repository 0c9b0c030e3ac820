// The Python module: checks nothing (the callers do), releases the GIL, chooses the instructions.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "net.hpp"

namespace nb = nanobind;
using namespace unmask;

namespace {

template <class T, int N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <class T, int N>
using Out = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
#if UNMASK_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        names.push_back("avx512");
    if (avx2) names.push_back("avx2");
#endif
    names.push_back("baseline");
    return names;
}

struct InstructionSet {
    Net* (*make_net)(const Shape&);
    double (*peak_flops)();
};

InstructionSet instruction_set(const std::string& name) {
#if UNMASK_X86
    if (name == "avx512") return {avx512::make_net, avx512::peak_flops};
    if (name == "avx2") return {avx2::make_net, avx2::peak_flops};
#endif
    if (name == "baseline") return {baseline::make_net, baseline::peak_flops};
    throw std::invalid_argument("no such instruction set: " + name);
}

class NativeMlp {
public:
    NativeMlp(const std::string& isa, int inputs, int classes, int depth, int width, int batch, int activation,
              int loss, int optimizer, float learning_rate)
        : shape_{inputs, classes, depth, width, batch, Activation(activation), Loss(loss), Optimizer(optimizer), learning_rate},
          net_(instruction_set(isa).make_net(shape_)) {}

    void set_layer(int layer, In<float, 2> weights, In<float, 1> biases) {
        net_->set_layer(layer, weights.data(), biases.data());
    }

    void get_layer(int layer, Out<float, 2> weights, Out<float, 1> biases) const {
        net_->get_layer(layer, weights.data(), biases.data());
    }

    auto train(In<uint8_t, 2> pixels, In<int64_t, 1> labels, In<uint32_t, 1> order, In<uint8_t, 1> stop) {
        const nb::gil_scoped_release release;
        const Score s = net_->train(pictures(pixels, labels), order.data(), order.shape(0), Stop(stop.data()));
        return std::make_tuple(s.loss, s.accuracy, s.diverged_step, s.stopped);
    }

    auto evaluate(In<uint8_t, 2> pixels, In<int64_t, 1> labels, In<uint8_t, 1> stop) {
        const nb::gil_scoped_release release;
        const Score s = net_->evaluate(pictures(pixels, labels), Stop(stop.data()));
        return std::make_tuple(s.loss, s.accuracy, s.stopped);
    }

    void probe(In<uint8_t, 2> pixels, In<int64_t, 1> labels, In<uint8_t, 2> dead_pixels, In<int64_t, 1> dead_labels,
               Out<double, 2> statistics, In<uint8_t, 1> stop) {
        const nb::gil_scoped_release release;
        net_->probe(pictures(pixels, labels), pictures(dead_pixels, dead_labels),
                    reinterpret_cast<LayerStatistics*>(statistics.data()), Stop(stop.data()));
    }

    void gradients(In<uint8_t, 2> pixels, In<int64_t, 1> labels, Out<double, 1> out) {
        const nb::gil_scoped_release release;
        net_->gradients(pictures(pixels, labels), out.data());
    }

private:
    static Pictures pictures(const In<uint8_t, 2>& pixels, const In<int64_t, 1>& labels) {
        return {pixels.data(), labels.data(), pixels.shape(0)};
    }

    Shape shape_;
    std::unique_ptr<Net> net_;
};

}  // namespace

NB_MODULE(_kernel, m) {
    m.def("instruction_sets", &instruction_sets, "Instruction sets this processor runs, the fastest first.");
    m.def("peak_flops", [](const std::string& isa) {
        const nb::gil_scoped_release release;
        return instruction_set(isa).peak_flops();
    }, nb::arg("isa"), "Floating-point operations a second of one core on an instruction set, at best.");
    nb::class_<NativeMlp>(m, "NativeMlp")
        .def(nb::init<const std::string&, int, int, int, int, int, int, int, int, float>(), nb::arg("isa"),
             nb::arg("inputs"), nb::arg("classes"), nb::arg("depth"), nb::arg("width"), nb::arg("batch"),
             nb::arg("activation"), nb::arg("loss"), nb::arg("optimizer"), nb::arg("learning_rate"),
             nb::call_guard<nb::gil_scoped_release>())
        .def("set_layer", &NativeMlp::set_layer)
        .def("get_layer", &NativeMlp::get_layer)
        .def("train", &NativeMlp::train)
        .def("evaluate", &NativeMlp::evaluate)
        .def("probe", &NativeMlp::probe)
        .def("gradients", &NativeMlp::gradients);
}
