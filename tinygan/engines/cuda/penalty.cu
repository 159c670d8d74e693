// Gradient penalties: what ../../penalties.py needs besides products. It uses pointwise.cu and minibatch.cu.

// epsilon * real + (1 - epsilon) * fake: epsilon, uniform in [0, 1), is one for all `numbers` of an image, and a pure function of
// (seed, step, image)
extern "C" __global__ void between(const Number* real, const Number* fake, Number* mixed, int numbers, int n, const int* step,
                                   unsigned seed_low, unsigned seed_high) {
    begin();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    uint4 bits = philox(make_uint4(i / numbers, *step, EPSILON, 0), make_uint2(seed_low, seed_high));
    const float epsilon = (bits.x >> 8) / 16777216.f;
    mixed[i] = epsilon * real[i] + (1 - epsilon) * fake[i];
}

const int R1 = 0, WGAN_GP = 1;

// From g = dD(x)/dx comes, in its place, v = weight * dpenalty/dg; the log gets weight * penalty. There is a block for each image,
// of `numbers` numbers, and the last of them adds up, all in double.
extern "C" __global__ void __launch_bounds__(256) penalty(
        Number* g, int numbers, int rule, float weight, double* shares, int* arrived, float* log, int log_rows, int* step,
        int ends_step) {
    begin();
    const int n = blockIdx.x, N = gridDim.x;
    g += n * numbers;
    double square = 0, sum = 0;
    for (int i = threadIdx.x; i < numbers; i += 256) square += (double)(g[i] * g[i]);
    square = block_sum(square);
    const double size = sqrt(square + 1e-12);
    const float factor = weight / N * (rule == R1 ? 1 : 2 * (size - 1) / size);
    for (int i = threadIdx.x; i < numbers; i += 256) g[i] = g[i] * factor;
    if (threadIdx.x == 0) shares[n] = rule == R1 ? square / 2 : (size - 1) * (size - 1);
    if (!last_to_arrive(arrived, N)) return;
    for (int i = threadIdx.x; i < N; i += 256) sum += shares[i];
    sum = block_sum(sum);
    if (threadIdx.x != 0) return;
    log[*step % log_rows * COLUMNS + 5] = weight / N * sum;
    *step += ends_step;
}
