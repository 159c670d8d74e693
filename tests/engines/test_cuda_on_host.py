"""CUDA kernels on the CPU: right ones come out right, and what would go wrong on a GPU is noticed here."""
import gc
import sys

import cuda_on_host
import fake_cupy
import numpy as np
import pytest
from cuda_on_host import CompileError, KernelError

pytestmark = pytest.mark.skipif(cuda_on_host.COMPILER is None,
                                reason='no C++ compiler: neither g++ nor c++ is on the path')

SOURCE = r'''
#ifndef HOST_SHIM
#error "a real device has its own mma, load_matrices ..."
#endif
#define SIDE 8
#define THREADS (32 * SIDE)
#ifndef FACTOR
#define FACTOR 1
#endif

extern "C" __global__ void __launch_bounds__(256) reversed(const float* x, float* y, int has_barrier) {
    __shared__ float kept[256];
    kept[threadIdx.x] = x[blockIdx.x * 256 + threadIdx.x];
    if (has_barrier) __syncthreads();
    y[blockIdx.x * 256 + threadIdx.x] = FACTOR * kept[255 - threadIdx.x];
}

// What a thread reads here was written by one of its own warp, so that this much is enough.
extern "C" __global__ void neighbour(const float* x, float* y, int has_barrier) {
    __shared__ float kept[64];
    kept[threadIdx.x] = x[threadIdx.x];
    if (has_barrier) __syncwarp();
    y[threadIdx.x] = kept[threadIdx.x ^ 1];
}

extern "C" __global__ __launch_bounds__(THREADS, 2) void block_sum(const float* x, float* sum, int n) {
    __shared__ float part[256];
    float mine = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) mine += x[i];
    part[threadIdx.x] = mine;
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    }
    if (threadIdx.x == 0) *sum = part[0];
}

extern "C" __global__ void shuffles(const double* x, double* y, unsigned mask) {
    double mine = x[threadIdx.x], sum = mine;
    y[threadIdx.x] = __shfl_down_sync(mask, mine, 3);
    y[threadIdx.x + 64] = __shfl_up_sync(mask, mine, 3);
    y[threadIdx.x + 128] = __shfl_sync(mask, mine, 7);
    for (int by = 1; by < 32; by *= 2) sum += __shfl_xor_sync(mask, sum, by);
    y[threadIdx.x + 192] = sum;
}

extern "C" __global__ void coordinates(int* out) {
    int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    int at = block * blockDim.x * blockDim.y * blockDim.z + thread;
    out[at] = threadIdx.x + 100 * threadIdx.y + 10000 * blockIdx.y + 1000000 * blockIdx.x;
}

extern "C" __global__ void two_barriers(int* x) {
    if (threadIdx.x < 40)
        __syncthreads();
    else
        __syncthreads();
}

extern "C" __global__ void early_return(int* x, int n) {
    if (threadIdx.x >= n) return;
    __syncthreads();
    x[threadIdx.x] = 1;
}

extern "C" __global__ void diverged_warp(float* x) {
    unsigned a[4] = {}, b[2] = {};
    float c[4] = {};
    if (threadIdx.x != 7) mma(c, a, b[0], b[1]);
    x[threadIdx.x] = c[0];
}

template <int N> __device__ __forceinline__ float* remembered() {
    __shared__ float memory[N];
    return memory;
}

extern "C" __global__ void old_memory(float* x) {          // also in a template
    x[blockIdx.x * SIDE + threadIdx.x] = remembered<SIDE>()[threadIdx.x];
    remembered<SIDE>()[threadIdx.x] = 1;
}

// Thread t says that its row lies at `shift` numbers behind row t of 8.
extern "C" __global__ void loads(const float* x, unsigned* y, int transposed, int shift, int from_shared, unsigned mask) {
    __shared__ __align__(16) float rows[128 + 4];
    for (int i = 0; i < 4; i++) rows[4 * threadIdx.x + i] = x[4 * threadIdx.x + i];
    if (mask) __syncwarp(mask);
    const float* row = (from_shared ? rows : x) + 4 * threadIdx.x + shift;
    if (transposed) load_transposed(y + 4 * threadIdx.x, row);
    else load_matrices(y + 4 * threadIdx.x, row);
}

extern "C" __global__ void two(const float* x, unsigned* y) { y[threadIdx.x] = two_bf16(x[2 * threadIdx.x], x[2 * threadIdx.x + 1]); }

extern "C" __global__ void rounded(const float* x, float* y) { y[threadIdx.x] = to_tf32(x[threadIdx.x]); }

// Copies twice, and waits for all but `left` of the `commits` groups; those over two are empty.
extern "C" __global__ void groups(const float* x, float* y, int commits, int left) {
    __shared__ __align__(16) float kept[256];
    for (int i = 0; i < 2; i++) {
        copy_async<16>(kept + 128 * i + 4 * threadIdx.x, x + 128 * i + 4 * threadIdx.x, true);
        if (i < commits) commit_copies();
    }
    for (int i = 2; i < commits; i++) commit_copies();
    if (left <= 1) wait_for_copies<1>();
    if (left == 0) wait_for_copies<0>();
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++) y[128 * i + 4 * threadIdx.x + j] = kept[128 * i + 4 * threadIdx.x + j];
}

// `to` and `from` are bytes behind where they usually are, or behind an array and a memory that is none.
extern "C" __global__ void one_copy(const float* x, float* y, int bytes, int to, int from, int there, int to_array,
                                    int from_shared) {
    __shared__ __align__(16) float kept[16];
    void* at = (char*)(to_array ? y : kept) + to;
    const void* source = (const char*)(from_shared ? kept + 8 : x) + from;
    if (bytes == 4) copy_async<4>(at, source, there);
    if (bytes == 8) copy_async<8>(at, source, there);
    if (bytes == 16) copy_async<16>(at, source, there);
    commit_copies();
    wait_for_copies<0>();
    for (int i = 0; i < 8; i++) y[i] = kept[i];
}

// A letter is a copy, a wait for it, a barrier, a read of what another thread has copied, or a change of what it copies.
extern "C" __global__ void copy_steps(float* x, float* y, const unsigned char* steps) {
    __shared__ float kept[64];
    for (; *steps; steps++) {
        if (*steps == 'C') copy_async<4>(kept + threadIdx.x, x + threadIdx.x, true), commit_copies();
        if (*steps == 'W') wait_for_copies<0>();
        if (*steps == 'B') __syncthreads();
        if (*steps == 'R') y[blockIdx.x * 64 + threadIdx.x] = kept[63 - threadIdx.x];
        if (*steps == 'X') x[63 - threadIdx.x] = 1;
    }
}

#if BF16
struct Number { unsigned short bits; };
#else
struct Number { float value; };
#endif
extern "C" __global__ void move_numbers(const Number* __restrict__ x, Number *y) { y[threadIdx.x] = x[threadIdx.x]; }
extern "C" __global__ void pairs(const float2* x, double2* y, unsigned short* z) {
    float2 two = make_float2(x[0].y, x[0].x);
    y[0] = make_double2(two.x, two.y + z[0]);
}
extern "C" __global__ void pair_by_value(float2 x) {}

extern "C" __global__ void product(const float* a, const float* b, float* c) {
    int row = threadIdx.x / 4, column = threadIdx.x % 4;
    unsigned fa[4], fb[2];
    float fc[4] = {1, 1, 1, 1};
    for (int i = 0; i < 4; i++) fa[i] = __float_as_uint(a[(row + i % 2 * 8) * 8 + column + i / 2 * 4]);
    for (int i = 0; i < 2; i++) fb[i] = __float_as_uint(b[(column + i * 4) * 8 + row]);
    mma(fc, fa, fb[0], fb[1]);
    for (int i = 0; i < 4; i++) c[(row + i / 2 * 8) * 8 + column * 2 + i % 2] = fc[i];
}

// A letter is a barrier, a fence, or a fence in the first thread only.
__device__ void pass(const unsigned char* guards) {
    for (; *guards; guards++)
        if (*guards == 'B') __syncthreads();
        else if (*guards == 'F' || threadIdx.x == 0) __threadfence();
}

// The last block to be done adds up what all threads have written, in one of its own, and resets the counter.
extern "C" __global__ void last_block(const float* x, float* parts, unsigned* done, float* sum,
                                      const unsigned char* before, const unsigned char* after) {
    __shared__ bool last;
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    parts[i] = x[i];
    pass(before);
    if (threadIdx.x == 0) last = atomicAdd(done, 1) == gridDim.x - 1;
    pass(after);
    if (threadIdx.x != 33 || !last) return;
    float all = 0;
    for (int i = 0; i < gridDim.x * blockDim.x; i++) all += parts[i];
    *sum = all;
    *done = 0;
}

// From here on, kernels that are right without a guard, too, in every order in which they run here.
extern "C" __global__ void neighbours(float* x, float* y, int distance, const unsigned char* guard) {
    x[threadIdx.x] = 1;
    if (*guard == 'B') __syncthreads();
    if (*guard == 'W') __syncwarp();
    if (*guard == 'S') __shfl_sync(0xffffffff, 1, 0);
    y[threadIdx.x] = x[threadIdx.x ^ distance];
}

extern "C" __global__ void used_twice(float* y, int has_barrier) {
    __shared__ float kept[64];
    for (int round = 0; round < 2; round++) {
        kept[threadIdx.x] = 1;
        __syncthreads();
        y[blockIdx.x * 64 + threadIdx.x] = kept[63 - threadIdx.x];
        if (has_barrier) __syncthreads();
    }
}

extern "C" __global__ void writes(int* x, int first, int count) {      // and the other threads add
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (first <= i && i < first + count) *x = 0;
    else atomicAdd(x, 0);
}

extern "C" __global__ void count_up(int* total) { atomicAdd(total, 1); }

extern "C" __global__ void move(const float* x, float* y, int n, int from, int to) {
    for (int i = 0; i < n; i++) y[to + i] = x[from + i];
}

extern "C" __global__ void move_four(const float* x, float* y, int from) {
    *(float4*)y = *(const float4*)(x + from);
}

extern "C" __global__ void shared_index(float* x, int i) {
    __shared__ float memory[4][8];
    memory[threadIdx.x][i] = 1;
    x[threadIdx.x] = memory[threadIdx.x][i];
}

extern "C" __global__ void divide(int* x, int by) { *x /= by; }

extern "C" __global__ void every_type(const float* __restrict__ f, double* d, const int *i, unsigned* u,
                                      unsigned char* b, long long* q, float x, double y, int n,
                                      unsigned int m, long long k) {
    d[0] = f[0] + x + y + i[0] + n + u[0] + m + b[0] + q[0] + k;
}

extern "C" __global__ void functions(const float* x, float* y) {
    float v = x[0];
    float values[] = {expf(v), logf(v), log1pf(v), tanhf(v), sqrtf(v), rsqrtf(v), cosf(v), sinf(v),
                      powf(v, 3), fmaxf(v, 1), fminf(v, 1), fabsf(-v), abs(-v), max(v, 1.f),
                      (float)min(3, 2u), (float)__umulhi(1u << 31, 6), (float)__umul64hi(1ull << 63, 10)};
    for (int i = 0; i < sizeof(values) / 4; i++) y[i] = values[i];
}

// A step of training in small: its number lies on the device, or is the host's.
extern "C" __global__ void add_step(float* x, const int* step, int host_step) {
    *x += 10 * *step + host_step;
}
extern "C" __global__ void next_step(int* step) { ++*step; }
'''
f32, i32, u32 = np.float32, np.int32, np.uint32


@pytest.fixture
def cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cupy', fake_cupy)
    monkeypatch.setattr(cuda_on_host, 'reverse', False)
    fake_cupy.count.clear()
    return fake_cupy


def kernel(name, *options):
    return fake_cupy.RawModule(code=SOURCE, options=options).get_function(name)


def text(letters):
    return fake_cupy.asarray(np.frombuffer(letters.encode() + b'\0', np.uint8))


def in_both_orders(run):
    """What run() returns with the threads and blocks in either order."""
    results = []
    for cuda_on_host.reverse in (False, True):
        results.append(run())
    return results


def races(where, run, *args):
    """Sees that run(*args) is a race."""
    with pytest.raises(KernelError, match=rf' of {where}, which thread .* of block .* and nothing orders the two'):
        run(*args)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_barriers_make_a_sum_right(cupy):
    x = numbers(1000)

    def run():
        total = cupy.zeros(1, f32)
        kernel('block_sum')((1,), (256,), (cupy.asarray(x), total, i32(1000)))
        return float(total[0])
    for total in in_both_orders(run):
        assert abs(total - x.sum(dtype=float)) < 1e-4


@pytest.mark.parametrize('name, threads, partner', [('reversed', 256, lambda i: 255 - i),
                                                    ('neighbour', 64, lambda i: i ^ 1)])
def test_a_kernel_needs_its_barrier(cupy, name, threads, partner):
    x = numbers(threads)

    def run(has_barrier):
        y = cupy.zeros(threads, f32)
        kernel(name)((1,), (threads,), (cupy.asarray(x), y, i32(has_barrier)))
        return y.get()
    for right in in_both_orders(lambda: run(1)):
        np.testing.assert_array_equal(right, x[partner(np.arange(threads))])
    in_both_orders(lambda: races('shared memory', run, 0))


def test_shuffles_stay_in_their_warp(cupy):
    x, y = np.arange(64.0), cupy.zeros((4, 2, 32), np.float64)
    lane, warps = np.arange(32), x.reshape(2, 32)
    expected = [warps[:, np.where(lane < 29, lane + 3, lane)], warps[:, np.where(lane > 2, lane - 3, lane)],
                warps[:, lane * 0 + 7], warps.sum(1, keepdims=True) + 0 * warps]
    for found in in_both_orders(lambda: kernel('shuffles')((1,), (64,), (cupy.asarray(x), y, u32(2**32 - 1)))
                                or y.get()):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(KernelError, match='mask'):
        kernel('shuffles')((1,), (64,), (cupy.asarray(x), y, u32(0xffff)))


def test_threads_and_blocks_know_where_they_are(cupy):
    out = cupy.zeros((2, 3, 8, 32), np.int32)
    for counts in in_both_orders(lambda: kernel('coordinates')((3, 2), (32, 8), (out,)) or out.get()):
        y, x, row, column = np.indices((2, 3, 8, 32))
        np.testing.assert_array_equal(counts, column + 100 * row + 10000 * y + 1000000 * x)


def test_a_barrier_that_not_all_threads_meet_is_an_error_and_the_next_run_is_right(cupy):
    x = cupy.zeros(64, i32)
    line = 1 + SOURCE[:SOURCE.index('else\n        __sync')].count('\n')
    with pytest.raises(KernelError, match=rf'\(32, 0, 0\) waits.* line {line - 1}, but .*\(40, 0, 0\) waits '
                                          rf'at __syncthreads\(\) in line {line + 1}'):
        kernel('two_barriers')((1,), (64,), (x,))
    for n, left, gone in (40, 32, 40), (32, 0, 32):         # within a warp, and a whole one
        with pytest.raises(KernelError, match=rf'\({left}, 0, 0\) waits at __syncthreads.*, but '
                                              rf'thread \({gone}, 0, 0\) has returned'):
            kernel('early_return')((1,), (64,), (x, i32(n)))
    kernel('early_return')((1,), (64,), (x, i32(64)))
    assert x.get().tolist() == [1] * 64


def test_a_product_of_less_than_a_warp_is_an_error(cupy):
    with pytest.raises(KernelError, match=r'\(0, 0, 0\) waits at mma.*\(7, 0, 0\) has returned'):
        kernel('diverged_warp')((1,), (32,), (cupy.zeros(32, f32),))
    with pytest.raises(KernelError, match='needs 32 threads'):
        kernel('product')((1,), (16,), tuple(cupy.zeros((16, 8), f32) for _ in 'abc'))


def test_shared_memory_holds_nan_in_every_block_anew(cupy):
    out = cupy.zeros((3, 8), f32)
    kernel('old_memory')((3,), (8,), (out,))
    assert np.isnan(out.get()).all()


def load(cupy, x, transposed=0, shift=0, from_shared=1, mask=2**32 - 1):
    y = cupy.zeros((32, 4), u32)
    kernel('loads')((1,), (32,), (cupy.asarray(x), y, *map(i32, (transposed, shift, from_shared)), u32(mask)))
    return y.get()


@pytest.mark.parametrize('transposed', [0, 1])
def test_a_warp_loads_four_matrices(cupy, transposed):
    x = np.arange(256, dtype=np.uint16)
    matrices = x.reshape(4, 8, 8).swapaxes(1, 2) if transposed else x.reshape(4, 8, 8)
    expected = matrices.reshape(4, 32, 2).swapaxes(0, 1)                    # thread 4q + t: numbers 2t, 2t+1 of row q
    for y in in_both_orders(lambda: load(cupy, x.view(f32), transposed)):
        np.testing.assert_array_equal(y.view(np.uint16).reshape(32, 4, 2), expected)


def test_rows_of_matrices_are_aligned_in_shared_memory_and_written_before(cupy):
    x = numbers(132)
    for wrong, what in ({'shift': 2}, 'not a multiple of 16'), ({'from_shared': 0}, 'not in shared memory'), ({'mask': 1}, 'mask'):
        with pytest.raises(KernelError, match=what):
            load(cupy, x, **wrong)
    load(cupy, x, shift=4)                                                  # the row that the next thread has written
    in_both_orders(lambda: races('shared memory', lambda: load(cupy, x, shift=4, mask=0)))


def test_numbers_are_rounded_to_the_nearest_bfloat16_ties_to_even(cupy):
    x = np.array([1, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8 - 2**-20, np.inf, np.nan, 3e38, 0], f32)
    y = cupy.zeros(4, u32)
    kernel('two')((1,), (4,), (cupy.asarray(x), y))
    found = (y.get().view(np.uint16).astype(u32) << 16).view(f32)
    np.testing.assert_array_equal(found, [1, 1, 1 + 2**-6, -1 - 2**-7, np.inf, np.nan, 226.0 * 2**120, 0])


def test_tensor_cores_multiply_bfloat16(cupy):
    a, b = (numbers(n, 16, seed=n).view(u32) >> 16 for n in (16, 8))       # cut to their first halves
    pairs = [np.ascontiguousarray(x[:, ::2] | x[:, 1::2] << 16) for x in (a, b)]
    c = cupy.zeros((16, 8), f32)
    kernel('product', '-DBF16=1')((1,), (32,), (*(cupy.asarray(x) for x in (pairs[0].view(f32), pairs[1].T.copy().view(f32))), c))
    a, b = ((x << 16).view(f32).astype(float) for x in (a, b))
    np.testing.assert_allclose(c.get(), 1 + a @ b.T, rtol=0, atol=3e-6)


def test_tensor_cores_multiply_what_is_left_of_the_operands_without_their_last_13_bits(cupy):
    a, b = numbers(16, 8), numbers(8, 8, seed=1)
    cut = [(x.view(np.uint32) & 0xffffe000).view(np.float32).astype(float) for x in (a, b)]

    def run():
        c = cupy.zeros((16, 8), f32)
        kernel('product')((1,), (32,), (cupy.asarray(a), cupy.asarray(b), c))
        return c.get()
    for c in in_both_orders(run):
        np.testing.assert_allclose(c, 1 + cut[0] @ cut[1], rtol=0, atol=3e-6)


def test_numbers_are_rounded_to_the_nearest_tf32_ties_away_from_zero(cupy):
    x = np.array([1, 1 + 2**-11, -1 - 2**-11, 1 + 2**-12, 1 + 3 * 2**-11, 1 + 2**-11 - 2**-23, 2 - 2**-23, -np.inf, 0, 0], f32)
    x.view(u32)[-2:] = 0x7fffffff, 0x7f800001                              # NaN
    y = cupy.zeros(10, f32)
    kernel('rounded')((1,), (10,), (cupy.asarray(x), y))
    np.testing.assert_array_equal(y.get(), [1, 1 + 2**-10, -1 - 2**-10, 1, 1 + 2**-9, 1, 2, -np.inf, np.nan, np.nan])


@pytest.mark.parametrize('commits, left, arrived', [(2, 2, 0), (2, 1, 1), (2, 0, 2), (1, 0, 1), (0, 0, 0), (3, 1, 2), (1, 1, 0)])
def test_copies_arrive_when_their_group_is_waited_for(cupy, commits, left, arrived):
    x = numbers(256)

    def run():
        y = cupy.zeros(256, f32)
        kernel('groups')((1,), (32,), (cupy.asarray(x), y, i32(commits), i32(left)))
        return y.get()
    for y in in_both_orders(run):
        np.testing.assert_array_equal(y, np.where(np.arange(256) < 128 * arrived, x, np.nan))


def one_copy(cupy, x, bytes, to=0, source=0, there=1, to_array=0, from_shared=0):
    y = cupy.zeros(8, f32)
    kernel('one_copy')((1,), (1,), (cupy.asarray(x), y, *map(i32, (bytes, to, source, there, to_array, from_shared))))
    return y.get()


@pytest.mark.parametrize('bytes', [4, 8, 16])
def test_a_copy_has_its_size_and_is_of_zeros_where_nothing_is_there(cupy, bytes):
    x, expected = numbers(8), np.full(8, np.nan)
    count = bytes // 4
    expected[4:4 + count] = x[4:4 + count]
    np.testing.assert_array_equal(one_copy(cupy, x, bytes, 16, 16), expected)
    expected[4:4 + count] = 0
    np.testing.assert_array_equal(one_copy(cupy, x, bytes, 16, 2**31 - 1, there=0), expected)
    x[:] = np.nan
    np.testing.assert_array_equal(one_copy(cupy, x, bytes, 16, 0, there=0), expected)


@pytest.mark.parametrize('bytes', [4, 8, 16])
def test_a_copy_is_aligned_and_from_an_array_to_shared_memory(cupy, bytes):
    for message, where in {f'a copy to .*: not a multiple of {bytes}': {'to': bytes // 2},
                           f'a copy from .*: not a multiple of {bytes}': {'source': bytes // 2},
                           'a copy to .* which is not in shared memory': {'to_array': 1},
                           'a copy from .* which belongs to no array': {'from_shared': 1}}.items():
        with pytest.raises(KernelError, match=message):
            one_copy(cupy, numbers(8), bytes, **where)
    with pytest.raises(KernelError, match='a copy to'):         # where nothing is there, too
        one_copy(cupy, numbers(8), bytes, bytes // 2, there=0)
    with pytest.raises(KernelError, match='belongs to no array'):
        one_copy(cupy, numbers(8), bytes, source=2**31 - 16)


def copy_steps(cupy, steps, blocks=1, x=None):
    y = cupy.zeros(64 * blocks, f32)
    kernel('copy_steps')((blocks,), (64,), (cupy.ones(64, f32) if x is None else x, y, text(steps)))
    return y.get()


def test_what_others_copy_is_there_after_their_wait_and_a_barrier(cupy):
    x = numbers(64)
    for steps in 'CWBR', 'CWBRBCWBR', 'CWBRBCBWBR', 'CWBRBX':
        for y in in_both_orders(lambda: copy_steps(cupy, steps, x=cupy.asarray(x))):
            np.testing.assert_array_equal(y, x[::-1])
    for steps in 'CBR', 'CWBRBCBR':                         # nor is what was there before
        for y in in_both_orders(lambda: copy_steps(cupy, steps)):
            assert np.isnan(y).all()


@pytest.mark.parametrize('steps, where', [('CWR', 'shared memory'), ('CBWR', 'shared memory'), ('CWBRCWBR', 'shared memory'),
                                          ('CWBRCBWBR', 'shared memory'), ('XCW', 'x'), ('XCBW', 'x'), ('CBXW', 'x')])
def test_a_race_with_a_copy_is_found_at_its_beginning_and_its_end(cupy, steps, where):
    in_both_orders(lambda: races(where, copy_steps, cupy, steps))


def test_copies_that_are_not_waited_for_do_not_reach_the_next_block_and_are_not_too_many(cupy):
    for y in in_both_orders(lambda: copy_steps(cupy, 'WBRBC', blocks=3)):
        assert np.isnan(y).all()
    assert (copy_steps(cupy, 'CW' * 300 + 'C' * 200 + 'WBR') == 1).all()
    with pytest.raises(KernelError, match='over 256 copies under way'):
        copy_steps(cupy, 'C' * 257)
    assert (copy_steps(cupy, 'C' * 256 + 'WBR') == 1).all()


@pytest.mark.parametrize('options, dtype, other', [((), f32, np.uint16), (('-DBF16=1',), np.uint16, f32)])
def test_a_number_has_four_bytes_or_in_bfloat16_two(cupy, options, dtype, other):
    x, run = np.arange(9, dtype=dtype), kernel('move_numbers', *options)

    def moved():
        y = cupy.empty((2, 5), dtype)
        run((1,), (9,), (cupy.asarray(x), y.reshape(10)[1:]))
        return y.get().ravel()[1:]
    for y in in_both_orders(moved):
        np.testing.assert_array_equal(y, x)
    with pytest.raises(TypeError, match=f"'Number .*y' takes {np.dtype(dtype)}, not {np.dtype(other)}"):
        run((1,), (9,), (cupy.asarray(x), cupy.zeros(9, other)))


def test_an_array_of_pairs_is_one_of_their_numbers(cupy):
    y = cupy.zeros((1, 2), np.float64)
    kernel('pairs')((1,), (1,), (cupy.asarray(np.array([3, 4], f32)), y, cupy.full(1, 60000, np.uint16)))
    assert y.get().tolist() == [[4, 60003]]
    with pytest.raises(TypeError, match='no argument is of the type'):
        kernel('pair_by_value')((1,), (1,), (f32(1),))


def test_the_last_block_done_sees_what_all_have_written(cupy):
    x, parts, done = numbers(20 * 64), cupy.zeros(20 * 64, f32), cupy.zeros(1, u32)

    def run(before, after):
        total = cupy.zeros(1, f32)
        kernel('last_block')((20,), (64,), (cupy.asarray(x), parts, done, total, text(before), text(after)))
        return float(total[0]), int(done[0])
    for before, after in ('FB', 'BF'), ('BF', 'FB'), ('Bf', 'fB'):
        for total, left in in_both_orders(lambda: run(before, after)):
            assert abs(total - x.sum(dtype=float)) < 1e-4 and left == 0
    for before, after in ('B', 'BF'), ('fB', 'BF'), ('F', 'BF'), ('f', 'BF'), ('FB', 'B'), ('FB', 'Bf'):
        for cuda_on_host.reverse in False, True:
            done[...] = 0
            races('parts', run, before, after)
    done[...] = 0
    races('(shared memory|done)', run, 'FB', 'F')


@pytest.mark.parametrize('distance, guards, too_little', [(0, 'N', ''), (1, 'BW', 'NS'), (32, 'B', 'NSW')])
def test_a_race_is_found_between_threads_that_nothing_orders(cupy, distance, guards, too_little):
    """In a warp a __syncwarp() does it, between warps only a barrier, and a shuffle nowhere."""
    x, y = cupy.zeros(64, f32), cupy.zeros(64, f32)

    def run(guard):
        kernel('neighbours')((1,), (64,), (x, y, i32(distance), text(guard)))
    for guard in guards:
        in_both_orders(lambda: run(guard))
    for guard in too_little:
        in_both_orders(lambda: races('x', run, guard))


def test_a_race_is_described(cupy):
    with pytest.raises(KernelError) as error:
        kernel('neighbours')((1,), (64,), (cupy.zeros(64, f32), cupy.zeros(64, f32), i32(32), text('W')))
    assert str(error.value) == ('neighbours, block (0, 0, 0), thread (32, 0, 0): writes byte 128 of x, which thread '
                                '(0, 0, 0) of block (0, 0, 0) has read, and nothing orders the two')


def test_shared_memory_is_not_used_again_before_all_have_read_it(cupy):
    def run(has_barrier):
        kernel('used_twice')((2,), (64,), (cupy.zeros(128, f32), i32(has_barrier)))
    in_both_orders(lambda: run(1))
    in_both_orders(lambda: races('shared memory', run, 0))


@pytest.mark.parametrize('grid, block', [((1,), (3,)), ((3,), (1,))])
def test_a_race_is_found_where_the_same_is_written_but_not_where_it_is_added(cupy, grid, block):
    def run(first, count):
        kernel('writes')(grid, block, (cupy.zeros(1, i32), i32(first), i32(count)))
    in_both_orders(lambda: run(0, 0))
    for first, count in (0, 3), (0, 2), (1, 2), (0, 1), (1, 1), (2, 1):
        in_both_orders(lambda: races('x', run, first, count))


def test_a_kernel_sees_views_of_one_memory_as_one_memory(cupy):
    flat = cupy.asarray(np.arange(12, dtype=f32))
    kernel('move')((1,), (1,), (flat, flat[4:10].reshape(2, 3), i32(6), i32(3), i32(0)))
    np.testing.assert_array_equal(flat.get(), [0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 10, 11])


def test_writing_beside_an_array_is_an_error_and_reading_there_gives_nan(cupy):
    flat = cupy.asarray(np.arange(12, dtype=f32))
    x, y = flat[:4], flat[4:8]
    for to in -1, 1, 5000:
        with pytest.raises(KernelError, match="move wrote beside the array 'y'"):
            kernel('move')((1,), (1,), (x, y, i32(4), i32(0), i32(to)))
    np.testing.assert_array_equal(flat.get(), np.arange(12))
    kernel('move')((1,), (1,), (x, y, i32(4), i32(2), i32(0)))
    np.testing.assert_array_equal(flat.get(), [0, 1, 2, 3, 2, 3, np.nan, np.nan, 8, 9, 10, 11])


def test_what_would_end_the_process_is_an_error(cupy):
    x, y = cupy.zeros(8, f32), cupy.zeros(8, f32)
    attempts = {
        'address .* belongs to no array':
            lambda: kernel('move')((1,), (1,), (x, y, i32(1), i32(2**31 - 1), i32(0))),
        'address .* is misaligned': lambda: kernel('move_four')((1,), (1,), (x, y, i32(1))),
        r'thread \(0, 0, 0\): index 8 is outside': lambda: kernel('shared_index')((1,), (4,), (x, i32(8))),
        r'thread \(4, 0, 0\): index 4 is outside': lambda: kernel('shared_index')((1,), (5,), (x, i32(0))),
        'divided by zero': lambda: kernel('divide')((1,), (1,), (cupy.zeros(1, i32), i32(0)))}
    for message, attempt in [*attempts.items(), *attempts.items()]:
        with pytest.raises(KernelError, match=message):
            attempt()
    kernel('move_four')((1,), (1,), (x + 3, y, i32(4)))
    assert y.get().tolist() == [3, 3, 3, 3, 0, 0, 0, 0]


def arguments(cupy):
    arrays = [cupy.ones(1, dtype) for dtype in (f32, np.float64, i32, u32, np.uint8, np.int64)]
    return [*arrays, f32(1), np.float64(1), i32(1), u32(1), np.int64(1)]


def test_each_type_of_argument_arrives(cupy):
    args = arguments(cupy)
    kernel('every_type')((1,), (1,), tuple(args))
    assert float(args[1][0]) == 10


@pytest.mark.parametrize('at, wrong', [
    (6, 1.0), (7, 1.0), (8, 1), (10, 1), (8, True), (8, None), (6, np.float64(1)), (8, u32(1)),
    (8, np.int64(1)), (9, i32(1)), (10, i32(1)), (0, np.ones(1, f32)), (0, 1), (6, fake_cupy.ones((), f32)),
    (0, fake_cupy.ones(1, np.float64)), (2, fake_cupy.ones(1, np.int64)), (3, fake_cupy.ones(1, i32)),
    (4, fake_cupy.ones(1, bool)), (0, fake_cupy.ones((2, 2), f32).T)])
def test_an_argument_of_another_type_is_refused(cupy, at, wrong):
    args = arguments(cupy)
    args[at] = wrong
    with pytest.raises(TypeError, match='takes'):
        kernel('every_type')((1,), (1,), tuple(args))


def test_a_launch_of_the_wrong_form_is_refused(cupy):
    x, run = cupy.zeros(2048, i32), kernel('count_up')
    for args in (), (x, x):
        with pytest.raises(TypeError, match='takes 1 argument'):
            run((1,), (1,), args)
    for grid, block in ((0,), (32,)), ((1, 0), (32,)), ((1,), (0,)), ((1,), (1025,)), ((1,), (33, 32)), \
            ((1,), (1, 1, 65)), ((1, 65536), (1,)):
        with pytest.raises(ValueError):
            run(grid, block, (x,))
    for grid, block in (1, (32,)), ((1,), 32), ([1], (32,)), ((1,), (1, 1, 1, 1)):
        with pytest.raises(TypeError):
            run(grid, block, (x,))
    many = cupy.zeros(512, f32)
    for name in 'reversed', 'block_sum':
        with pytest.raises(KernelError, match='512 threads.*launch_bounds.*256'):
            kernel(name)((1,), (512,), (many, many, i32(1)))
    assert x.get().sum() == 0


def test_the_functions_of_cuda_are_there(cupy):
    v, out = 0.7, cupy.zeros(17, f32)
    kernel('functions')((1,), (1,), (cupy.full(1, v, f32), out))
    expected = [np.exp(v), np.log(v), np.log1p(v), np.tanh(v), v**.5, v**-.5, np.cos(v), np.sin(v), v**3,
                1, v, v, v, 1, 2, 3, 5]
    np.testing.assert_allclose(out.get(), expected, rtol=1e-6)


def test_a_module_is_compiled_with_its_options_and_once_for_all_runs(cupy, monkeypatch):
    x, y = cupy.ones(256, f32), cupy.zeros(256, f32)
    kernel('reversed', '-DFACTOR=3', '--std=c++17', '--use_fast_math')((1,), (256,), (x, y, i32(1)))
    assert y.get().tolist() == [3] * 256
    kernel('reversed')((1,), (256,), (x, y, i32(1)))
    assert y.get().tolist() == [1] * 256
    cuda_on_host.build.cache_clear()
    monkeypatch.setattr(cuda_on_host.subprocess, 'run', None)           # not asked again
    kernel('reversed', '-DFACTOR=3', '--std=c++17', '--use_fast_math')((1,), (256,), (x, y, i32(1)))
    assert y.get().tolist() == [3] * 256


def test_a_module_says_what_is_wrong_with_it(cupy):
    broken = 'extern "C" __global__ void f(int* x) {\n    *x = y;\n}\n'
    with pytest.raises(CompileError, match="kernels.cu:2:.*'y'"):
        cupy.RawKernel(broken, 'f')((1,), (1,), (cupy.zeros(1, i32),))
    with pytest.raises(CompileError, match='unknown option -O3'):
        kernel('reversed', '-O3')
    with pytest.raises(KernelError, match='CUDA_ERROR_NOT_FOUND.* absent'):
        kernel('absent')
    with pytest.raises(TypeError, match='tuple'):
        cupy.RawModule(code=SOURCE, options=['-DFACTOR=3'])


def steps(cupy):
    """(x, run): a run adds the step on the device, times ten, and the host's to x, and advances both."""
    x, step, host_step = cupy.zeros(1, f32), cupy.ones(1, i32), [0]

    def run():
        host_step[0] += 1
        kernel('add_step')((1,), (1,), (x, step, i32(host_step[0])))
        kernel('next_step')((1,), (1,), (step,))
    return x, run


def test_a_replayed_graph_advances_what_lies_on_the_device_and_nothing_else(cupy):
    x, run = steps(cupy)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        assert not stream.is_capturing()
        stream.begin_capture()
        assert stream.is_capturing() and cupy.cuda.get_current_stream() is stream
        run()
        graph = stream.end_capture()
        assert not stream.is_capturing() and float(x[0]) == 0
        assert cupy.count['launches'] == 2                  # zeros and ones
        cupy.count.clear()
        graph.upload(stream)
        for _ in range(3):
            graph.launch(stream)
        stream.synchronize()
    assert cupy.cuda.get_current_stream() is cupy.cuda.Stream.null
    assert (cupy.count['graphs'], cupy.count['launches'], cupy.count['syncs']) == (3, 6, 1)
    assert float(x[0]) == 10 + 20 + 30 + 3 * 1              # eagerly it would be 10 + 20 + 30 and 1 + 2 + 3
    graph.launch()
    assert float(x[0]) == 103 + 1


def test_a_graph_does_not_keep_its_arrays(cupy):
    flat, step = cupy.zeros(4, f32), cupy.ones(1, i32)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        kernel('add_step')((1,), (1,), (flat[2:3], step, i32(0)))
        graph = stream.end_capture()
    graph.launch()                                          # the view has gone, its memory has not
    assert flat.get().tolist() == [0, 0, 10, 0]
    del step
    gc.collect()
    with pytest.raises(KernelError, match="add_step: the array 'step' has been freed"):
        graph.launch()


def test_nothing_but_kernels_is_captured(cupy):
    a, square, host, zeros = cupy.ones(4, f32), cupy.ones((4, 4), f32), np.ones(4, f32), cupy.zeros(2, f32)
    refused = {
        'cuBLAS': (NotImplementedError, lambda: square @ square),
        'cuBLAS, out=': (NotImplementedError, lambda: cupy.matmul(square, square, out=square)),
        'get': (RuntimeError, a.get),
        'float': (RuntimeError, lambda: float(a[0])),
        'asarray': (RuntimeError, lambda: cupy.asarray(host)),
        'a ufunc': (RuntimeError, lambda: a + a),
        'in place': (RuntimeError, lambda: a.__iadd__(a)),
        'a fill': (RuntimeError, lambda: square.fill(3)),
        'a copy': (RuntimeError, lambda: a.__setitem__(slice(2), zeros)),
        'a reduction': (RuntimeError, a.sum),
        'empty': (RuntimeError, lambda: cupy.empty(4, f32)),
        'zeros': (RuntimeError, lambda: cupy.zeros(4, f32)),
        'the device': (RuntimeError, cupy.cuda.Device().synchronize)}
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        graph_before = stream.end_capture()
        stream.begin_capture()
        cupy.count.clear()
        for what, (error, attempt) in {**refused, 'a graph': (RuntimeError, graph_before.launch)}.items():
            with pytest.raises(error, match='captur'):
                attempt()
                pytest.fail(what)
        assert a[1:].reshape(3, 1).T.shape == (1, 3) and cupy.asarray(a) is a        # views are free
        stream.end_capture()
        assert not cupy.count
        a += 1
    assert a.get().tolist() == [2] * 4 and square.get().tolist() == [[1] * 4] * 4


def test_a_wait_ends_a_capture_and_some_cannot_begin(cupy):
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match='StreamCaptureUnsupported'):
            stream.synchronize()
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match='StreamCaptureInvalidated'):
            stream.end_capture()
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match='IllegalState'):
            stream.end_capture()
    for null in cupy.cuda.Stream.null, cupy.cuda.Stream(null=True):
        with pytest.raises(RuntimeError, match='cannot capture on the default'):
            null.begin_capture()
    with pytest.raises(NotImplementedError):
        cupy.cuda.Graph()


def captured_beside(cupy, work, other_work, waits=True):
    stream, side, event = cupy.cuda.Stream(), cupy.cuda.Stream(), cupy.cuda.Event()
    with stream:
        stream.begin_capture()
        event.record(stream)
        side.wait_event(event)
        with side:
            other_work()
        work()
        if waits:
            stream.wait_event(side.record())
        return stream.end_capture()


def test_two_streams_of_a_capture_may_not_use_what_one_of_them_changes(cupy):
    a, b = numbers(8), numbers(8, seed=1)
    on_device = cupy.asarray(np.concatenate([a, b]))
    x, y = on_device[:8], on_device[8:]

    def move(array, to):
        return lambda: kernel('move')((1,), (1,), (array, array, i32(4), i32(0), i32(to)))

    captured_beside(cupy, move(x, 4), move(y, 4)).launch()
    np.testing.assert_array_equal(on_device.get(), np.concatenate([a[:4], a[:4], b[:4], b[:4]]))
    with pytest.raises(KernelError, match='move and move may run at the same time'):
        captured_beside(cupy, move(x, 4), move(on_device, 8))
    stream = cupy.cuda.Stream()
    with stream:                                            # one after the other they may
        stream.begin_capture()
        move(x, 4)()
        move(on_device, 8)()
        stream.end_capture()


def test_a_capture_waits_for_the_streams_it_took_in_and_for_no_others(cupy):
    x, y = cupy.zeros(8, f32), cupy.zeros(8, f32)

    def work(array):
        return lambda: kernel('move')((1,), (1,), (array, array, i32(4), i32(0), i32(4)))

    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match='StreamCaptureUnjoined'):
        captured_beside(cupy, work(x), work(y), waits=False)
    stream, other = cupy.cuda.Stream(), cupy.cuda.Stream()
    outside = other.record()
    with stream:
        stream.begin_capture()
        inside = stream.record()
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match='StreamCaptureIsolation'):
            stream.wait_event(outside)
        stream.end_capture()
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match='StreamCaptureIsolation'):
        other.wait_event(inside)
    other.wait_event(outside)


def test_without_a_driver_no_kernel_runs(cupy, monkeypatch):
    x = cupy.zeros(1, i32)
    monkeypatch.setattr(cupy, 'driver_error', RuntimeError('cudaErrorInsufficientDriver'))
    for attempt in (lambda: kernel('count_up')((1,), (1,), (x,)), cupy.cuda.Device):
        with pytest.raises(RuntimeError, match='cudaErrorInsufficientDriver'):
            attempt()
    assert x._host[0] == 0
