// What a CUDA kernel calls, where it is compiled for the CPU, to be tested without a GPU (see cuda_on_host.py): what NVRTC knows
// by itself, and what a .cu source has inline PTX for. cuda_on_host.cpp says how the kernel then runs.
#define HOST_SHIM

#define _GLIBCXX_INCLUDE_NEXT_C_HEADERS     // C's own headers: libstdc++'s take much longer to compile
#include <math.h>
#include <string.h>
#undef _GLIBCXX_INCLUDE_NEXT_C_HEADERS
#undef INFINITY                             // NVRTC has none of these
#undef NAN
#undef M_PI

#define __global__
#define __device__ __attribute__((always_inline))       // reads of a struct to hand it to a function go unseen
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// Thread-local, so that all of it, also what templates have, lies in one piece and can be filled with NaN. On
// a GPU it belongs to a block; here one block runs at a time.
#define __shared__ static thread_local

struct uint3 { unsigned x, y, z; };
typedef uint3 dim3;
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(16) int4 { int x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace on_host {
// cuda_on_host.cpp has these. A line is one of the .cu source.
const unsigned WHOLE_WARP = 0xffffffff;
extern void** arguments;
const char* run(void (*body)(), const char* const* names, int max_threads, const unsigned* sizes, void** values, char* memory,
                size_t bytes, bool reverse);
int lane();
void wait_for_block(int line);
void wait_for_warp(unsigned mask, int line);
void shuffle(const char* place, unsigned mask, void* value, int bytes, int source, int line);
void multiply(float* c, const unsigned* a, const unsigned* b, int line);
void load(unsigned* to, const void* row, bool transposed, int line);
void begin_copy(void* to, const void* from, bool there, int bytes, int line);
void commit_copies();
void finish_copies(unsigned but);
void fence();

template <class T> T value_of(const char* place, unsigned mask, T value, int source, int line) {
    static_assert(sizeof value <= 8, "a shuffle hands on 4 or 8 bytes");
    shuffle(place, mask, &value, sizeof value, source, line);
    return value;
}
}

// CUDA's functions. The line, wherever it is asked for, is the caller's.

inline void __syncthreads(int line = __builtin_LINE()) { on_host::wait_for_block(line); }
inline void __syncwarp(unsigned mask = on_host::WHOLE_WARP, int line = __builtin_LINE()) { on_host::wait_for_warp(mask, line); }
inline void __threadfence() { on_host::fence(); }
inline void __threadfence_block() {}

template <class T> T __shfl_sync(unsigned mask, T value, int source, int line = __builtin_LINE()) {
    return on_host::value_of("__shfl_sync()", mask, value, source % 32, line);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int line = __builtin_LINE()) {
    return on_host::value_of("__shfl_xor_sync()", mask, value, (on_host::lane() ^ lanes) % 32, line);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned by, int line = __builtin_LINE()) {
    unsigned lane = on_host::lane();
    return on_host::value_of("__shfl_down_sync()", mask, value, lane + by < 32 ? lane + by : lane, line);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned by, int line = __builtin_LINE()) {
    unsigned lane = on_host::lane();
    return on_host::value_of("__shfl_up_sync()", mask, value, by <= lane ? lane - by : lane, line);
}

int atomicAdd(int* at, int value);
unsigned atomicAdd(unsigned* at, unsigned value);
float atomicAdd(float* at, float value);

template <class A, class B> constexpr auto min(A a, B b) { return b < a ? b : a; }
template <class A, class B> constexpr auto max(A a, B b) { return a < b ? b : a; }
inline float abs(float x) { return fabsf(x); }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float x, float y) { return x / y; }
template <class T> T __ldg(const T* at) { return *at; }
inline unsigned __float_as_uint(float x) { unsigned bits; memcpy(&bits, &x, 4); return bits; }
inline int __float_as_int(float x) { return __float_as_uint(x); }
inline float __uint_as_float(unsigned bits) { float x; memcpy(&x, &bits, 4); return x; }
inline float __int_as_float(int bits) { return __uint_as_float(bits); }
inline unsigned __umulhi(unsigned a, unsigned b) { return 1ULL * a * b >> 32; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned __int128>(a) * b >> 64;
}

// What a .cu source has inline PTX for, and leaves to this file where HOST_SHIM is defined.

inline void mma(float* c, const unsigned* a, unsigned b0, unsigned b1, int line = __builtin_LINE()) {
    const unsigned b[] = {b0, b1};
    on_host::multiply(c, a, b, line);
}
inline void load_matrices(unsigned* to, const void* row, int line = __builtin_LINE()) { on_host::load(to, row, false, line); }
inline void load_transposed(unsigned* to, const void* row, int line = __builtin_LINE()) { on_host::load(to, row, true, line); }
inline unsigned two_bf16(float low, float high) {
    unsigned bits[] = {__float_as_uint(low), __float_as_uint(high)};
    for (unsigned& b : bits) b = (b & 0x7fffffff) > 0x7f800000 ? 0x7fff : (b + 0x7fff + (b >> 16 & 1)) >> 16;
    return bits[0] | bits[1] << 16;
}

// A copy of 4, 8 or 16 bytes of an array to shared memory, for which the thread does not wait; zeros if it is not `there`.
template <int BYTES> void copy_async(void* to, const void* from, bool there, int line = __builtin_LINE()) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "4, 8 or 16 bytes");
    on_host::begin_copy(to, from, there, BYTES, line);
}
// The copies that the thread has begun since the last time are a group,
inline void commit_copies() { on_host::commit_copies(); }
// and of its groups all but the newest N are done after this.
template <int N> void wait_for_copies() { on_host::finish_copies(N); }

// Here a kernel begins when the one before it has ended.
inline void begin() {}

// Rounded to 10 bits behind the point, ties away from zero
inline float to_tf32(float x) {
    unsigned bits = __float_as_uint(x);
    return (bits & 0x7f800000) == 0x7f800000 ? x : __uint_as_float((bits + 0x1000) & 0xffffe000);
}
