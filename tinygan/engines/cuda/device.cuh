// What the kernels need of the GPU beyond C++: its tensor cores, its copies that go on beside the arithmetic, and the
// way several blocks finish one sum. The first two have no header in CuPy's compiler: they are PTX, the GPU's assembly.

// A tensor core cuts off all but 10 of the 23 bits behind the point of what it reads. So x is enlarged by as much as it
// thereby loses on average. (Rounding takes two instructions, and is hardly better: 2.9e-4 for 3.1e-4 in a product.)
__device__ __forceinline__ unsigned tf32(float x) { return __float_as_uint(x * 1.00035f); }

#ifndef HOST_SHIM                              // the tests, which run the kernels on a CPU, bring their own
#if TF32
// c (16 x 8) += a (16 x 8) b (8 x 8), by the 32 threads of a warp together. Thread 4q + t has of c the numbers
// (q, 2t) (q, 2t+1) (q+8, 2t) (q+8, 2t+1), of a (q, t) (q+8, t) (q, t+4) (q+8, t+4), of b (t, q) (t+4, q).
__device__ __forceinline__ void mma(float* c, const unsigned* a, const unsigned* b) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// Copies from global to shared memory that are over when wait_copies says so; zeros where valid is false.
#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ void copy16(void* to, const void* from, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;"
                 :: "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "r"(valid ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copy4(void* to, const void* from, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                 :: "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "r"(valid ? 4 : 0) : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Wait until at most N of the groups that this thread has committed are still under way.
template<int N> __device__ __forceinline__ void wait_copies() {
    asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
}
#else                                          // older than Ampere: ordinary copies, done at once
__device__ __forceinline__ void copy16(void* to, const void* from, bool valid) {
    *(float4*)to = valid ? *(const float4*)from : make_float4(0, 0, 0, 0);
}
__device__ __forceinline__ void copy4(void* to, const void* from, bool valid) {
    *(float*)to = valid ? *(const float*)from : 0;
}
__device__ __forceinline__ void commit_copies() {}
template<int N> __device__ __forceinline__ void wait_copies() {}
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
