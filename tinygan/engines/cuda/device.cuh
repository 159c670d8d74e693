// What the kernels need of the GPU beyond C++: its tensor cores, copies that nobody waits for, and the way several blocks finish
// one sum. CuPy's compiler has no header for them, so they are written in PTX, the GPU's assembly.

#ifndef HOST_SHIM                              // the tests, which run the kernels on a CPU, bring their own
#if TF32 || BF16
// c (16 x 8) += a (16 x K) b (K x 8), by the 32 threads of a warp together, with K 8 in TF32 and 16 in bfloat16. Thread 4q + t
// has of c the numbers (q, 2t) (q, 2t+1) (q+8, 2t) (q+8, 2t+1), of a (q, t) (q+8, t) (q, t+4) (q+8, t+4), of b (t, q) (t+4, q),
// where t stands for the K's 2t and 2t+1 in bfloat16, and t+4 for 2t+8 and 2t+9.
__device__ __forceinline__ void mma(float* c, const unsigned* a, unsigned b0, unsigned b1) {
#if BF16
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
#endif
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices of 16-bit numbers, or 8 x 4 of 32 bits, from shared memory: thread 8i + j says where row j of matrix i
// lies, and thread 4q + t gets of each the 32 bits t of row q. Transposed, numbers 2t and 2t+1 of column q.
__device__ __forceinline__ void load_matrices(unsigned* to, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row)) : "memory");
}
__device__ __forceinline__ void load_transposed(unsigned* to, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row)) : "memory");
}

__device__ __forceinline__ float to_tf32(float x) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __uint_as_float(bits);
}

// Two numbers rounded to bfloat16, side by side
__device__ __forceinline__ unsigned two_bf16(float low, float high) {
    unsigned bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}
#endif

// BYTES, 4, 8 or 16, from global to shared memory, or zeros if they are not `there`. They arrive while the thread goes on; it may
// wait until all the groups of copies that it has committed are there but the last N. Before Ampere, copies are waited for.
template<int BYTES> __device__ __forceinline__ void copy_async(void* to, const void* from, bool there) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                 :: "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "n"(BYTES), "r"(there ? BYTES : 0) : "memory");
#else
    for (int i = 0; i < BYTES / 4; i++) ((unsigned*)to)[i] = there ? ((const unsigned*)from)[i] : 0;
#endif
}
__device__ __forceinline__ void commit_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template<int N> __device__ __forceinline__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
#endif
}

// The beginning of every kernel, which may have been launched while the one before it in its stream was ending (launch.py): its
// blocks wait until what that one wrote can be read.
__device__ __forceinline__ void begin() {
#if OVERLAPS
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
#endif

// What layers hand one another, forward and backward, and the weights: a number as products read it, so that they need not
// round. Tensor cores read 10 of the 23 bits behind the point of a float in TF32. In bfloat16 a number has 16 bits, the upper half
// of a float, 7 behind the point.
struct Number {
#if BF16
    unsigned short bits;
    __device__ Number(float x) : bits(two_bf16(x, 0)) {}
    __device__ operator float() const { return __uint_as_float((unsigned)bits << 16); }
#else
    float x;
#if TF32
    __device__ Number(float x) : x(to_tf32(x)) {}
#else
    __device__ Number(float x) : x(x) {}
#endif
    __device__ operator float() const { return x; }
#endif
    Number() = default;
};

// WIDTH neighbours in memory, which are read and written at once
template<int WIDTH> struct alignas(WIDTH * sizeof(Number)) Neighbours {
    Number numbers[WIDTH];

    __device__ __forceinline__ float operator[](int k) const { return numbers[k]; }
    __device__ __forceinline__ void take(const float* x) {
#if BF16
        if constexpr (WIDTH % 2 == 0)          // two in one instruction
            for (int k = 0; k < WIDTH; k += 2) ((unsigned*)numbers)[k / 2] = two_bf16(x[k], x[k + 1]);
        else
#endif
        for (int k = 0; k < WIDTH; k++) numbers[k] = x[k];
    }
};
template<int WIDTH> __device__ __forceinline__ Neighbours<WIDTH>& neighbours(Number* at) { return *(Neighbours<WIDTH>*)at; }
template<int WIDTH> __device__ __forceinline__ const Neighbours<WIDTH>& neighbours(const Number* at) {
    return *(const Neighbours<WIDTH>*)at;
}

// For blocks that each have left their share of a result in global memory: true for the last of them to call, which
// sees what all have left. `arrived` starts at 0 and is 0 again afterwards.
__device__ __forceinline__ bool last_to_arrive(int* arrived, int blocks) {
    __shared__ bool last;
    __threadfence();                           // my share is in memory before I am counted
    __syncthreads();
    if (threadIdx.x + threadIdx.y == 0) {
        last = atomicAdd(arrived, 1) == blocks - 1;
        if (last) *arrived = 0;
    }
    __syncthreads();
    __threadfence();
    return last;
}

// Activations are numbers here: LeakyReLU, which with slope 0 is ReLU and with slope 1 changes nothing, tanh, sigmoid.
const int LEAKY_RELU = 0, TANH = 1, SIGMOID = 2;

// In place, for WIDTH numbers
template<int WIDTH> __device__ __forceinline__ void activate(float* x, int activation, float slope) {
    if (activation == LEAKY_RELU)
        for (int k = 0; k < WIDTH; k++) x[k] = x[k] > 0 ? x[k] : slope * x[k];
    else if (activation == TANH)
        for (int k = 0; k < WIDTH; k++) x[k] = tanhf(x[k]);
    else
        for (int k = 0; k < WIDTH; k++) x[k] = 1 / (1 + expf(-x[k]));
}

// dy/dx in terms of y: 1 or slope, 1 - y y, y - y y. The last are one polynomial, so that a loop needs no branches.
struct Slope {
    float above, below, linear, square;                        // where y > 0, where not

    __device__ Slope(int activation, float slope)
        : above(activation != SIGMOID), below(activation == LEAKY_RELU ? slope : above),
          linear(activation == SIGMOID), square(activation == LEAKY_RELU ? 0 : -1) {}
    __device__ float operator()(float y) const { return (y > 0 ? above : below) + y * (linear + square * y); }
};
