// What the kernels need of the GPU beyond C++: its tensor cores, and the way several blocks finish one sum. CuPy's compiler has
// no header for tensor cores, so they are written in PTX, the GPU's assembly.

// A tensor core cuts off all but 10 of the 23 bits behind the point of what it reads. So x is enlarged by as much as it
// thereby loses on average. (Rounding takes four instructions, and is hardly better: an error of 2.9e-4
// instead of 3.1e-4 in a product.)
__device__ __forceinline__ float tf32(float x) { return x * 1.00035f; }

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

// Two numbers rounded to bfloat16, side by side
__device__ __forceinline__ unsigned two_bf16(float low, float high) {
    unsigned bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}
#endif
#endif

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

__device__ __forceinline__ float activate(float x, int activation, float slope) {
    if (activation == TANH) return tanhf(x);
    if (activation == SIGMOID) return 1 / (1 + expf(-x));
    return x > 0 ? x : slope * x;
}

// dy/dx in terms of y
__device__ __forceinline__ float activation_grad(float y, int activation, float slope) {
    if (activation == TANH) return 1 - y * y;
    if (activation == SIGMOID) return y * (1 - y);
    return y > 0 ? 1 : slope;
}
