// What a training step does besides products: BatchNorm and activations, forward and backward, losses and Adam. Rows are all
// but the last axis: of images, a row is a pixel and C its channels.
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

// x (N, pixels, C) with the planes of LabelPlanes behind its channels, and its backward. The label of image n lies in the last
// `classes` of the `width` numbers of row n of `labels`; behind the last row, the first is next.
extern "C" __global__ void join_planes(const float* x, const float* labels, float* y, int pixels, int C, int classes, int rows,
                                       int width, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x, pixel = i / (C + classes), c = i % (C + classes);
    if (i >= n) return;
    y[i] = c < C ? x[pixel * C + c] : labels[(pixel / pixels % rows + 1) * width - classes + c - C];
}

extern "C" __global__ void cut_planes(const float* dy, float* dx, int C, int classes, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) dx[i] = dy[i / C * (C + classes) + i % C];
}

// The sum over the 256 threads of a block, in all of them
template<class T>
__device__ T block_sum(T mine) {
    __shared__ T parts[256];
    parts[threadIdx.x] = mine;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    }
    __syncthreads();
    T total = parts[0];
    __syncthreads();                           // for the next call, which overwrites them
    return total;
}

// The losses of ../../losses.py, times weight; to the last two, target is the sign. A single block writes dscore and returns the
// mean of the loss; mean_output is what is reported as D's opinion.
const int CROSS_ENTROPY = 0, LEAST_SQUARES = 1, WASSERSTEIN = 2, HINGE = 3;

__device__ float softplus(float s) { return fmaxf(s, 0) + log1pf(expf(-fabsf(s))); }

__device__ float loss_and_grad(const float* score, float* dscore, int N, int kind, float target, float weight,
                               float& mean_output) {
    double2 mine = make_double2(0, 0);
    for (int i = threadIdx.x; i < N; i += 256) {
        float s = score[i], p = expf(-softplus(-s)), loss, grad;
        switch (kind) {
            case CROSS_ENTROPY: loss = target * softplus(-s) + (1 - target) * softplus(s), grad = p - target; break;
            case LEAST_SQUARES: loss = (s - target) * (s - target) / 2, grad = s - target; break;
            case WASSERSTEIN: loss = -target * s, grad = -target; break;
            case HINGE: loss = fmaxf(1 - target * s, 0), grad = loss > 0 ? -target : 0;
        }
        mine += make_double2(weight * loss, kind == CROSS_ENTROPY ? p : s);
        dscore[i] = weight * grad / N;
    }
    double2 total = block_sum(mine);
    mean_output = total.y / N;
    return total.x / N;
}

// An optimiser's step count goes up, and with it Adam's corrections 1 / (1 - beta^t)
__device__ void advance(int* t, float* corrections, double beta1, double beta2) {
    *t += 1;
    corrections[0] = 1 / (1 - pow(beta1, (double)*t));
    corrections[1] = 1 / (1 - pow(beta2, (double)*t));
}

// Numbers in a row of the log, which holds the losses and opinions of a step. The last is of a penalty: see penalty.cu
const int COLUMNS = 6;

// D's loss on N fake scores and, behind them, N real ones. Row step % log_rows of the log gets loss, D(x), D(G(z)).
// While the loss is at most rests_at, D rests: its corrections are 0, and Adam does nothing.
extern "C" __global__ void discriminator_loss(
        const float* score, float* dscore, int N, int kind, float real, float fake, float weight, float rests_at,
        int* t, float* corrections, double beta1, double beta2, float* log, int log_rows, int* step, int ends_step) {
    float output_real, output_fake;
    float loss = loss_and_grad(score + N, dscore + N, N, kind, real, weight, output_real);
    loss += loss_and_grad(score, dscore, N, kind, fake, weight, output_fake);
    if (threadIdx.x != 0) return;
    float* row = log + *step % log_rows * COLUMNS;
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
    float* row = log + *step % log_rows * COLUMNS;
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
