// Aligned, zeroed storage. The standard containers are kept out of these files: their inline code
// would be compiled for one instruction set and could be linked into another.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>

namespace unmask::UNMASK_ISA {

class Floats {
public:
    Floats() = default;
    explicit Floats(size_t count) {
        const size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
        if (bytes == 0) return;
        data_ = static_cast<float*>(std::aligned_alloc(64, bytes));
        if (!data_) throw std::bad_alloc();
        std::memset(data_, 0, bytes);
    }
    Floats(Floats&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
    Floats& operator=(Floats&& other) noexcept {
        float* mine = data_;
        data_ = other.data_;
        other.data_ = mine;
        return *this;
    }
    ~Floats() { std::free(data_); }
    float* get() const { return data_; }

private:
    float* data_ = nullptr;
};

}  // namespace unmask::UNMASK_ISA
