// What a training step does besides products: BatchNorm and activations, forward and backward, losses, Adam, noise and
// minibatches. Rows are all but the last axis: of images, a row is a pixel and C its channels.
//
// D sees fake and real images in one pass, but to BatchNorm they are two minibatches: `groups` equal parts of the rows,
// each with statistics of its own. `rows` counts those of one group.

// In the kernels for BatchNorm and for sums, a thread stays in one channel of one group and visits every so many rows.
// blockDim is (channels, rows), gridDim (blocks for the channels, blocks for the rows, groups), and no thread is left
// over. Of blocks so large a multiprocessor has two at once, if a thread needs no more than 32 registers.
const int THREADS = 1024;

__device__ int channel() { return blockIdx.x * blockDim.x + threadIdx.x; }

// True in one of the threads of each channel
__device__ bool is_first() { return blockIdx.z + blockIdx.y + threadIdx.y == 0; }

// visit(i) for each row that is a thread's, whose number lies at i
template<class Visit>
__device__ void each_row(int rows, int C, Visit visit) {
    const int row = blockIdx.z * rows + blockIdx.y * blockDim.y + threadIdx.y, end = (blockIdx.z + 1) * rows * C;
    for (int i = row * C + channel(); i < end; i += gridDim.y * blockDim.y * C) visit(i);
}

__device__ void operator+=(double2& sum, double2 more) { sum = make_double2(sum.x + more.x, sum.y + more.y); }

// Sums of two numbers a row, pair(i), over the rows of a group, for each channel. Of the blocks for the rows, the last
// to finish adds the shares, all in double. True in the thread that has the total of its channel.
template<class Pair>
__device__ bool column_sums(int rows, int C, Pair pair, double2* shares, int* arrived, double2& total) {
    __shared__ double2 parts[THREADS];
    const int y = threadIdx.y, t = y * blockDim.x + threadIdx.x;
    auto add_over_y = [&]() {                  // pairwise; leaves the sum in the threads with y = 0
        parts[t] = total;
        for (int n = blockDim.y; n > 1; n = (n + 1) / 2) {
            __syncthreads();
            if (y < n / 2) parts[t] += parts[t + (n + 1) / 2 * blockDim.x];
        }
        total = parts[t];
    };
    total = make_double2(0, 0);
    each_row(rows, C, [&](int i) { total += pair(i); });
    add_over_y();
    if (gridDim.y == 1) return y == 0;
    shares += blockIdx.z * gridDim.y * C + channel();
    if (y == 0) shares[blockIdx.y * C] = total;
    if (!last_to_arrive(arrived + blockIdx.z * gridDim.x + blockIdx.x, gridDim.y)) return false;
    total = make_double2(0, 0);
    for (int block = y; block < gridDim.y; block += blockDim.y) total += shares[block * C];
    add_over_y();
    return y == 0;
}

// BatchNorm and the activation after it, in one channel of a group
struct Norm {
    float mean, rstd, gamma, beta;
    int activation;
    float slope;

    __device__ float xhat(float x) const { return (x - mean) * rstd; }
    __device__ float y(float x) const { return activate(gamma * xhat(x) + beta, activation, slope); }
    __device__ float d(float x, float dy) const { return dy * activation_grad(y(x), activation, slope); }
};

// Their forward, first half: mean and variance of each channel of x
extern "C" __global__ void __launch_bounds__(THREADS, 2) batch_statistics(
        int rows, int C, const float* x, float* mu, float* var, double* shares, int* arrived) {
    const int group_c = blockIdx.z * C + channel();
    auto pair = [=](int i) { return make_double2(x[i], x[i] * x[i]); };
    double2 total;
    if (column_sums(rows, C, pair, (double2*)shares, arrived, total)) {
        double mean = total.x / rows;
        mu[group_c] = mean;
        var[group_c] = max(0.0, total.y / rows - mean * mean);
    }
}

// and second half, y = activation(gamma * xhat + beta). The running statistics follow the groups from the last, the
// real images, to the first.
extern "C" __global__ void __launch_bounds__(THREADS, 2) normalise(
        int rows, int C, const float* x, const float* mu, const float* var, const float* gamma, const float* beta,
        float* running_mean, float* running_var, float* y, float eps, float momentum, int activation, float slope) {
    const int c = channel(), group_c = blockIdx.z * C + c;
    const Norm norm = {mu[group_c], rsqrtf(var[group_c] + eps), gamma[c], beta[c], activation, slope};
    each_row(rows, C, [=](int i) { y[i] = norm.y(x[i]); });
    if (!is_first()) return;
    for (int g = gridDim.z - 1; g >= 0; g--) {
        running_mean[c] += momentum * (mu[g * C + c] - running_mean[c]);
        running_var[c] += momentum * (var[g * C + c] * (rows / (rows - 1.f)) - running_var[c]);
    }
}

// Their backward, first half: the sums of d, which is dy gone back through the activation, and d * xhat. They are the
// group's part of dbeta and dgamma.
extern "C" __global__ void __launch_bounds__(THREADS, 2) normalise_sums(
        int rows, int C, const float* x, const float* mu, const float* var, const float* gamma, const float* beta,
        const float* dy, float* sum_d, float* sum_d_xhat, float eps, int activation, float slope, double* shares,
        int* arrived) {
    const int c = channel(), group_c = blockIdx.z * C + c;
    const Norm norm = {mu[group_c], rsqrtf(var[group_c] + eps), gamma[c], beta[c], activation, slope};
    auto pair = [=](int i) {
        float d = norm.d(x[i], dy[i]);
        return make_double2(d, d * norm.xhat(x[i]));
    };
    double2 total;
    if (column_sums(rows, C, pair, (double2*)shares, arrived, total)) {
        sum_d[group_c] = total.x;
        sum_d_xhat[group_c] = total.y;
    }
}

// and second half, dx = gamma * rstd * (d - mean of d - xhat * mean of d * xhat), in place of dy
extern "C" __global__ void __launch_bounds__(THREADS, 2) normalise_grad(
        int rows, int C, const float* x, const float* mu, const float* var, const float* gamma, const float* beta,
        const float* sum_d, const float* sum_d_xhat, float* dy, float* dgamma, float* dbeta, float eps, int activation,
        float slope) {
    const int c = channel(), group_c = blockIdx.z * C + c;
    const Norm norm = {mu[group_c], rsqrtf(var[group_c] + eps), gamma[c], beta[c], activation, slope};
    const float mean_d = sum_d[group_c] / rows, mean_d_xhat = sum_d_xhat[group_c] / rows;
    each_row(rows, C, [=](int i) {
        dy[i] = norm.gamma * norm.rstd * (norm.d(x[i], dy[i]) - mean_d - norm.xhat(x[i]) * mean_d_xhat);
    });
    if (!is_first()) return;
    float beta_sum = 0, gamma_sum = 0;
    for (int g = 0; g < gridDim.z; g++) beta_sum += sum_d[g * C + c], gamma_sum += sum_d_xhat[g * C + c];
    dbeta[c] = beta_sum;
    dgamma[c] = gamma_sum;
}

// Without BatchNorm: dy goes back through the activation, in place, and db = sum of dy
extern "C" __global__ void __launch_bounds__(THREADS, 2) activation_sums(
        int rows, int C, const float* y, float* dy, float* db, int activation, float slope, double* shares,
        int* arrived) {
    auto pair = [=](int i) { return make_double2(dy[i] *= activation_grad(y[i], activation, slope), 0); };
    double2 total;
    if (column_sums(rows, C, pair, (double2*)shares, arrived, total)) db[channel()] = total.x;
}

// The mean of each channel, x (N, pixels, C) -> y (N, C), and its backward; n counts the numbers that are written
extern "C" __global__ void pool(const float* x, float* y, int pixels, int C, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float sum = 0;
    for (int p = 0; p < pixels; p++) sum += x[(i / C * pixels + p) * C + i % C];
    y[i] = sum / pixels;
}

extern "C" __global__ void pool_grad(const float* dy, float* dx, int pixels, int C, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) dx[i] = dy[i / C / pixels * C + i % C] / pixels;
}

// The losses of ../losses.py, times weight: binary cross-entropy of sigmoid(score), or half the squared error. A single
// block writes dscore and returns, in thread 0, the mean of the loss; mean_output is what is reported as D's opinion.
const int CROSS_ENTROPY = 0, LEAST_SQUARES = 1;

__device__ float softplus(float s) { return fmaxf(s, 0) + log1pf(expf(-fabsf(s))); }

__device__ float loss_and_grad(const float* score, float* dscore, int N, int kind, float target, float weight,
                               float& mean_output) {
    __shared__ double2 parts[256];
    double2 mine = make_double2(0, 0);
    for (int i = threadIdx.x; i < N; i += 256) {
        float s = score[i], p = expf(-softplus(-s));
        bool entropy = kind == CROSS_ENTROPY;
        float loss = entropy ? target * softplus(-s) + (1 - target) * softplus(s) : (s - target) * (s - target) / 2;
        mine.x += weight * loss;
        mine.y += entropy ? p : s;
        dscore[i] = weight * ((entropy ? p : s) - target) / N;
    }
    parts[threadIdx.x] = mine;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    }
    __syncthreads();
    double2 total = parts[0];
    __syncthreads();                           // for the next call, which overwrites them
    mean_output = total.y / N;
    return total.x / N;
}

// An optimiser's step count goes up, and with it Adam's corrections 1 / (1 - beta^t)
__device__ void advance(int* t, float* corrections, double beta1, double beta2) {
    *t += 1;
    corrections[0] = 1 / (1 - pow(beta1, (double)*t));
    corrections[1] = 1 / (1 - pow(beta2, (double)*t));
}

// D's loss on N fake scores and, behind them, N real ones. Row step % log_rows of the log gets loss, D(x), D(G(z)).
// While the loss is at most rests_at, D rests: its corrections are 0, and Adam does nothing.
extern "C" __global__ void discriminator_loss(
        const float* score, float* dscore, int N, int kind, float real, float fake, float weight, float rests_at,
        int* t, float* corrections, double beta1, double beta2, float* log, int log_rows, int* step, int ends_step) {
    float output_real, output_fake;
    float loss = loss_and_grad(score + N, dscore + N, N, kind, real, weight, output_real);
    loss += loss_and_grad(score, dscore, N, kind, fake, weight, output_fake);
    if (threadIdx.x != 0) return;
    float* row = log + *step % log_rows * 5;
    row[0] = loss, row[1] = output_real, row[2] = output_fake;
    corrections[0] = 0;
    if (!(loss <= rests_at)) advance(t, corrections, beta1, beta2);
    *step += ends_step;
}

// G's loss on the scores of its N fakes: the log gets it and D(G(z)) after D's update
extern "C" __global__ void generator_loss(
        const float* score, float* dscore, int N, int kind, float target, float weight,
        int* t, float* corrections, double beta1, double beta2, float* log, int log_rows, int* step) {
    float output;
    float loss = loss_and_grad(score, dscore, N, kind, target, weight, output);
    if (threadIdx.x != 0) return;
    float* row = log + *step % log_rows * 5;
    row[3] = loss, row[4] = output;
    advance(t, corrections, beta1, beta2);
    *step += 1;
}

// Adam, as in ../optim.py, with m and v moved by rate = 1 - beta toward what is new
extern "C" __global__ void adam(float* theta, float* m, float* v, const float* g, int n, const float* corrections,
                                float lr, float rate1, float rate2, float eps) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n || corrections[0] == 0) return;
    m[i] += rate1 * (g[i] - m[i]);
    v[i] += rate2 * (g[i] * g[i] - v[i]);
    theta[i] -= lr * (m[i] * corrections[0]) / (sqrtf(v[i] * corrections[1]) + eps);
}

// Average.step, as in ../optim.py
extern "C" __global__ void follow(float* average, const float* theta, int n, float rate, const int* t) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) average[i] += fmaxf(rate, 10.f / (9 + *t)) * (theta[i] - average[i]);
}

// Philox4x32-10 (Salmon et al. 2011): ten rounds make a counter and a key into 128 random bits
__device__ uint4 philox(uint4 counter, uint2 key) {
    for (int round = 0; round < 10; round++) {
        unsigned a = __umulhi(0xD2511F53, counter.x), b = __umulhi(0xCD9E8D57, counter.z);
        counter = make_uint4(b ^ counter.y ^ key.x, 0xCD9E8D57 * counter.z,
                             a ^ counter.w ^ key.y, 0xD2511F53 * counter.x);
        key = make_uint2(key.x + 0x9E3779B9, key.y + 0xBB67AE85);
    }
    return counter;
}

// Four numbers of N(0, 1), a pure function of (seed, step, purpose, i), by Box and Muller's transform
__device__ void normal(float* four, int i, int step, int purpose, unsigned seed_low, unsigned seed_high) {
    uint4 bits = philox(make_uint4(i, step, purpose, 0), make_uint2(seed_low, seed_high));
    unsigned pairs[4] = {bits.x, bits.y, bits.z, bits.w};
    for (int k = 0; k < 4; k++) {
        float radius = sqrtf(-2 * logf((pairs[k / 2 * 2] + 1.f) / 4294967296.f));
        float angle = 6.283185307f * (pairs[k / 2 * 2 + 1] / 4294967296.f);
        four[k] = radius * (k % 2 ? sinf(angle) : cosf(angle));
    }
}

// z ~ N(0, 1): a thread makes four of the n numbers
extern "C" __global__ void noise(float* z, int n, const int* step, unsigned seed_low, unsigned seed_high) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (4 * i >= n) return;
    float four[4];
    normal(four, i, *step, 0, seed_low, seed_high);
    for (int k = 0; k < 4 && 4 * i + k < n; k++) z[4 * i + k] = four[k];
}

// y = x + noise of standard deviation sd; x and y may be the same array
extern "C" __global__ void add_noise(const float* x, float* y, int n, float sd, const int* step,
                                     unsigned seed_low, unsigned seed_high, int purpose) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (4 * i >= n) return;
    float four[4];
    normal(four, i, *step, purpose, seed_low, seed_high);
    for (int k = 0; k < 4 && 4 * i + k < n; k++) y[4 * i + k] = x[4 * i + k] + sd * four[k];
}

// x = the minibatch of this step, as ../../data/images.py has it: images uint8 (H, W, C) of `numbers` each, taken in the epoch's
// order, where ~i stands for image i, flipped
extern "C" __global__ void minibatch(const unsigned char* images, const int* order, float* x, int N, int numbers, int W, int C,
                                     const int* step, int steps_per_epoch, float scale, float black) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= N * numbers) return;
    const int image = order[*step % steps_per_epoch * N + i / numbers];
    int place = i % numbers;
    if (image < 0) place += (W - 1 - 2 * (place / C % W)) * C;
    x[i] = images[(long long)(image < 0 ? ~image : image) * numbers + place] * scale + black;
}
