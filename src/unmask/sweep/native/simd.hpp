// Vectors of LANES floats by the compiler's vector extension, one width for each instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#define UNMASK_INLINE inline __attribute__((always_inline))
#define UNMASK_INLINE_LAMBDA __attribute__((always_inline))

namespace unmask::UNMASK_ISA {

constexpr int LANES = UNMASK_LANES;

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef int32_t IVec __attribute__((vector_size(LANES * 4)));

constexpr int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

UNMASK_INLINE Vec splat(float x) { return x - Vec{}; }
UNMASK_INLINE IVec splat_int(int32_t x) { return x - IVec{}; }
UNMASK_INLINE Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
UNMASK_INLINE void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
UNMASK_INLINE Vec from_int(IVec v) { return __builtin_convertvector(v, Vec); }

// The second operand is returned where either is NaN, as the x86 instructions do.
#if UNMASK_X86 && !defined(__clang__) && UNMASK_LANES == 16
UNMASK_INLINE Vec max(Vec a, Vec b) { return __builtin_ia32_maxps512_mask(a, b, a, -1, 4); }
UNMASK_INLINE Vec min(Vec a, Vec b) { return __builtin_ia32_minps512_mask(a, b, a, -1, 4); }
#elif UNMASK_X86 && !defined(__clang__) && UNMASK_LANES == 8
UNMASK_INLINE Vec max(Vec a, Vec b) { return __builtin_ia32_maxps256(a, b); }
UNMASK_INLINE Vec min(Vec a, Vec b) { return __builtin_ia32_minps256(a, b); }
#else
UNMASK_INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }
UNMASK_INLINE Vec min(Vec a, Vec b) { return a < b ? a : b; }
#endif

UNMASK_INLINE Vec abs(Vec v) { return reinterpret_cast<Vec>(reinterpret_cast<IVec>(v) & 0x7fffffff); }

// One butterfly of a transposition: swaps the off-diagonal quarters of every 2S x 2S block.
template <int S, int... I>
UNMASK_INLINE void butterfly(Vec& a, Vec& b, std::integer_sequence<int, I...>) {
    const Vec low = __builtin_shufflevector(a, b, ((I & S) ? I - S + LANES : I)...);
    b = __builtin_shufflevector(a, b, ((I & S) ? I + LANES : I + S)...);
    a = low;
}

template <int S>
UNMASK_INLINE void butterflies(Vec (&rows)[LANES]) {
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i)
        if (!(i & S)) butterfly<S>(rows[i], rows[i + S], std::make_integer_sequence<int, LANES>{});
    if constexpr (2 * S < LANES) butterflies<2 * S>(rows);
}

// A LANES x LANES block, transposed in registers.
UNMASK_INLINE void load_transposed(Vec (&rows)[LANES], const float* from, ptrdiff_t stride) {
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) rows[i] = load(from + i * stride);
    butterflies<1>(rows);
}

template <int ROWS, int VECS>
UNMASK_INLINE void clear(Vec (&acc)[ROWS][VECS]) {
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < VECS; ++v) acc[r][v] = Vec{};
}

// acc[r][v] += sum over k < count of p[r * row + k * step] * q[k * q_step + v * q_next ...]: the one
// inner loop of this kernel. Forward, backward and weight gradient differ in strides only. After
// every `run` steps p takes a further jump: from one panel of the weights to the next.
template <int ROWS, int VECS>
UNMASK_INLINE void multiply_add(Vec (&acc)[ROWS][VECS], const float* p, ptrdiff_t row, ptrdiff_t step,
                                const float* q, ptrdiff_t q_step, ptrdiff_t q_next, int count,
                                int run = 0, ptrdiff_t jump = 0) {
    int left = run;
    for (int k = 0; k < count; ++k, p += step, q += q_step) {
        Vec columns[VECS];
#pragma GCC unroll 4
        for (int v = 0; v < VECS; ++v) columns[v] = load(q + v * q_next);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            const Vec a = splat(p[r * row]);
#pragma GCC unroll 4
            for (int v = 0; v < VECS; ++v) acc[r][v] += a * columns[v];
        }
        if (run && --left == 0) {
            p += jump;
            left = run;
        }
    }
}

// Calls tile.template operator()<ROWS, VECS>(r, v) until rows x vecs is covered, rows outermost.
template <int ROWS, int VECS, class Tile>
UNMASK_INLINE void across(int r, int vecs, Tile&& tile) {
    int v = 0;
    for (; v + VECS <= vecs; v += VECS) tile.template operator()<ROWS, VECS>(r, v);
    if constexpr (VECS > 1)
        for (; v < vecs; ++v) tile.template operator()<ROWS, 1>(r, v);
}

template <int ROWS, int VECS, class Tile>
UNMASK_INLINE void tiled(int rows, int vecs, Tile&& tile, int r = 0) {
    for (; r + ROWS <= rows; r += ROWS) across<ROWS, VECS>(r, vecs, tile);
    if constexpr (ROWS > 1) {
        if (r < rows) tiled<ROWS / 2, VECS>(rows, vecs, tile, r);
    }
}

}  // namespace unmask::UNMASK_ISA
