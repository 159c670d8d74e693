// BatchNorm, forward and backward, but for what products do of it, and sums over rows and slices. Rows are all but the last axis:
// of images, a row is a pixel and C its channels.
//
// D sees fake and real images in one pass, but to BatchNorm they are two minibatches: `groups` equal parts of the rows,
// each with statistics of its own. `rows` counts those of one group.

// A thread stays in the same channels of one group and visits every so many rows.
// blockDim is (channels, rows), gridDim (blocks for the channels, blocks for the rows, groups), and no thread is left over.
const int THREADS = 512;

// The channel of a thread, or the first of WIDTH
template<int WIDTH = 1> __device__ int channel() { return (blockIdx.x * blockDim.x + threadIdx.x) * WIDTH; }

// use(i, load(i)) for each row that is a thread's, whose number lies at i: with four loads on their way at a time
template<int WIDTH, class Load, class Use>
__device__ void each_row(int rows, int C, Load load, Use use) {
    const unsigned row = blockIdx.z * rows + blockIdx.y * blockDim.y + threadIdx.y, end = (blockIdx.z + 1) * rows * C;
    const unsigned stride = gridDim.y * blockDim.y * C;
    for (unsigned i = row * C + channel<WIDTH>(); i < end; i += 4 * stride) {
        decltype(load(0)) loaded[4];
        #pragma unroll
        for (int n = 0; n < 4; n++)
            if (i + n * stride < end) loaded[n] = load(i + n * stride);
        #pragma unroll
        for (int n = 0; n < 4; n++)
            if (i + n * stride < end) use(i + n * stride, loaded[n]);
    }
}

__device__ void operator+=(double2& sum, double2 more) { sum = make_double2(sum.x + more.x, sum.y + more.y); }

// The sum of two numbers over the threads of one channel, in those with y = 0
__device__ double2 add_up(double2 mine) {
    __shared__ double2 sums[THREADS];
    const int t = threadIdx.y * blockDim.x + threadIdx.x;
    __syncthreads();                           // nobody reads what the last call has left
    sums[t] = mine;
    for (int n = blockDim.y; n > 1; n = (n + 1) / 2) {         // pairwise
        __syncthreads();
        if (threadIdx.y < n / 2) sums[t] += sums[t + (n + 1) / 2 * blockDim.x];
    }
    return sums[t];
}

// The sum of the `count` parts that the blocks of a product, or of activation_sums, have left of it, in a channel of a group
__device__ double2 total(const float2* parts, int count, int C, int group) {
    double2 mine = make_double2(0, 0);
    for (int i0 = threadIdx.y; i0 < count; i0 += 8 * blockDim.y) {
        float2 eight[8] = {};                  // on their way at the same time
        for (int n = 0; n < 8; n++)
            if (int i = i0 + n * blockDim.y; i < count) eight[n] = parts[(group * count + i) * C + channel()];
        for (int n = 0; n < 8; n++) mine += make_double2(eight[n].x, eight[n].y);
    }
    return add_up(mine);
}

// BatchNorm's statistics, from the parts of the sums of x - pivot and its square, where pivot is what the running mean was: so few
// digits are lost if it is large. The running ones follow the groups from the last, the real images, to the first.
extern "C" __global__ void __launch_bounds__(THREADS) statistics(
        int rows, int C, const float2* parts, int count, int groups, float* mu, float* rstd, float* running_mean,
        float* running_var, float eps, float momentum) {
    begin();
    const int c = channel();
    const float pivot = running_mean[c];
    for (int group = groups - 1; group >= 0; group--) {
        const double2 sums = total(parts, count, C, group);
        if (threadIdx.y > 0) continue;
        const double moved = sums.x / rows, mean = pivot + moved, var = max(0.0, sums.y / rows - moved * moved);
        mu[group * C + c] = mean;
        rstd[group * C + c] = rsqrtf(float(var) + eps);
        running_mean[c] += momentum * (float(mean) - running_mean[c]);
        running_var[c] += momentum * (float(var) * (rows / (rows - 1.f)) - running_var[c]);
    }
}

// y = activation(gamma * xhat + beta)
template<int WIDTH> __device__ void normalise_rows(
        int rows, int C, const Number* x, Number* y, const float* mu, const float* rstd, const float* gamma, const float* beta,
        int activation, float slope) {
    const int c = channel<WIDTH>(), group_c = blockIdx.z * C + c;
    float mean[WIDTH], scale[WIDTH], shift[WIDTH];
    for (int k = 0; k < WIDTH; k++)
        mean[k] = mu[group_c + k], scale[k] = gamma[c + k] * rstd[group_c + k], shift[k] = beta[c + k];
    each_row<WIDTH>(rows, C, [=](int i) { return neighbours<WIDTH>(x + i); },
                    [&](int i, Neighbours<WIDTH> x) {
                        float row[WIDTH];
                        for (int k = 0; k < WIDTH; k++) row[k] = (x[k] - mean[k]) * scale[k] + shift[k];
                        activate<WIDTH>(row, activation, slope);
                        neighbours<WIDTH>(y + i).take(row);
                    });
}

extern "C" __global__ void __launch_bounds__(THREADS) normalise(
        int rows, int C, const Number* x, Number* y, const float* mu, const float* rstd, const float* gamma, const float* beta,
        int activation, float slope) {
    begin();
    if (C % 4) normalise_rows<1>(rows, C, x, y, mu, rstd, gamma, beta, activation, slope);
    else normalise_rows<4>(rows, C, x, y, mu, rstd, gamma, beta, activation, slope);
}

// The backward's first half, where no product above has done it: dy goes back through the activation and becomes d, the gradient of
// gamma * xhat + beta, and each block leaves its parts of the sums of d and of d * xhat. Without BatchNorm, rstd is 0, of one
// channel for all.
extern "C" __global__ void __launch_bounds__(THREADS) activation_sums(
        int rows, int C, const Number* y, const Number* x, Number* dy, const float* mu, const float* rstd, int channels,
        int activation, float slope, float2* parts) {
    begin();
    const int place = blockIdx.z * channels + channel() % channels;
    const float mean = mu[place], scale = rstd[place];
    const Slope slope_at(activation, slope);
    double2 mine = make_double2(0, 0);
    each_row<1>(rows, C,
        [=](int i) { return make_float2(dy[i] * slope_at(y[i]), scale ? (x[i] - mean) * scale : 0); },
        [&](int i, float2 d_xhat) {
            dy[i] = d_xhat.x;
            mine += make_double2(d_xhat.x, d_xhat.x * d_xhat.y);
        });
    mine = add_up(mine);
    if (threadIdx.y == 0) parts[(blockIdx.z * gridDim.y + blockIdx.y) * C + channel()] = make_float2(mine.x, mine.y);
}

// The sums of d and of d * xhat, of each group and of all: those are dbeta (or db, without BatchNorm) and dgamma
extern "C" __global__ void __launch_bounds__(THREADS) sums_of_parts(
        int C, const float2* parts, int count, int groups, float2* sums, float* dgamma, float* dbeta) {
    begin();
    const int c = channel();
    double2 all = make_double2(0, 0);
    for (int group = 0; group < groups; group++) {
        const double2 one = total(parts, count, C, group);
        all += one;
        if (threadIdx.y == 0) sums[group * C + c] = make_float2(one.x, one.y);
    }
    if (threadIdx.y == 0) dbeta[c] = all.x, dgamma[c] = all.y;
}

// dx = gamma * rstd * (d - mean of d - xhat * mean of d * xhat), in place of d
template<int WIDTH> __device__ void normalise_grad_rows(
        int rows, int C, const Number* x, Number* d, const float* mu, const float* rstd, const float* gamma, const float2* sums) {
    struct Two { Neighbours<WIDTH> d, x; };
    const int c = channel<WIDTH>(), group_c = blockIdx.z * C + c;
    float mean[WIDTH], factor[WIDTH], mean_d[WIDTH], slope[WIDTH];         // slope is rstd * mean of d * xhat
    for (int k = 0; k < WIDTH; k++) {
        const float2 sum = sums[group_c + k];
        mean[k] = mu[group_c + k], factor[k] = gamma[c + k] * rstd[group_c + k];
        mean_d[k] = sum.x / rows, slope[k] = rstd[group_c + k] * (sum.y / rows);
    }
    each_row<WIDTH>(rows, C, [=](int i) { return Two{neighbours<WIDTH>(d + i), neighbours<WIDTH>(x + i)}; },
                    [&](int i, Two two) {
                        float dx[WIDTH];
                        for (int k = 0; k < WIDTH; k++)
                            dx[k] = factor[k] * (two.d[k] - mean_d[k] - (two.x[k] - mean[k]) * slope[k]);
                        neighbours<WIDTH>(d + i).take(dx);
                    });
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) normalise_grad(
        int rows, int C, const Number* x, Number* d, const float* mu, const float* rstd, const float* gamma, const float2* sums) {
    begin();
    if (C % 4) normalise_grad_rows<1>(rows, C, x, d, mu, rstd, gamma, sums);
    else normalise_grad_rows<4>(rows, C, x, d, mu, rstd, gamma, sums);
}

// The gradient of weights, from the shares of it that slices of a sum have left one behind the other, always added in the same
// order; it may be added to what is there. blockDim is (numbers, slices at a time).
extern "C" __global__ void __launch_bounds__(THREADS) add_slices(const float* shares, int slices, float* dw, int n, int adds) {
    begin();
    __shared__ float sums[THREADS];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0;
    for (int slice0 = threadIdx.y; i < n && slice0 < slices; slice0 += 8 * blockDim.y) {
        float eight[8] = {};                   // on their way at the same time
        for (int k = 0; k < 8; k++)
            if (int slice = slice0 + k * blockDim.y; slice < slices) eight[k] = shares[slice * n + i];
        for (int k = 0; k < 8; k++) sum += eight[k];
    }
    sums[threadIdx.y * blockDim.x + threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || i >= n) return;
    for (int y = 1; y < blockDim.y; y++) sum += sums[y * blockDim.x + threadIdx.x];
    dw[i] = adds ? dw[i] + sum : sum;
}
