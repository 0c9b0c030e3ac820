// Aligned, zeroed storage. The standard containers are kept out of these files: their inline code
// would be compiled for one instruction set and could be linked into another.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace unmask::UNMASK_ISA {

class Floats {
public:
    Floats() = default;
    explicit Floats(size_t count) {
        // calloc leaves large blocks untouched until they are used.
        block_ = std::calloc(count * sizeof(float) + ALIGNMENT, 1);
        if (!block_) throw std::bad_alloc();
        const size_t address = reinterpret_cast<size_t>(block_);
        data_ = reinterpret_cast<float*>((address + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    }
    Floats(Floats&& other) noexcept : block_(other.block_), data_(other.data_) { other.block_ = nullptr; }
    Floats& operator=(Floats&& other) noexcept {
        std::free(block_);
        block_ = other.block_;
        data_ = other.data_;
        other.block_ = nullptr;
        return *this;
    }
    ~Floats() { std::free(block_); }
    float* get() const { return data_; }

private:
    static constexpr size_t ALIGNMENT = 64;
    void* block_ = nullptr;
    float* data_ = nullptr;
};

// A fixed number of values, which end with their owner. Named within the instruction set, as every
// template here must be.
template <class T>
class Array {
public:
    explicit Array(size_t count) : data_(new T[count]()) {}
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    ~Array() { delete[] data_; }
    T& operator[](size_t i) const { return data_[i]; }

private:
    T* data_;
};

}  // namespace unmask::UNMASK_ISA
