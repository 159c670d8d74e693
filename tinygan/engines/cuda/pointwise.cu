// What a training step does besides products and BatchNorm: pooling, labels as planes, losses, Adam.

// The mean of each channel, x (N, pixels, C) -> y (N, C), and its backward; n counts the numbers that are written
extern "C" __global__ void pool(const Number* x, Number* y, int pixels, int C, int n) {
    begin();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float sum = 0;
    for (int p = 0; p < pixels; p++) sum += x[(i / C * pixels + p) * C + i % C];
    y[i] = sum / pixels;
}

extern "C" __global__ void pool_grad(const Number* dy, Number* dx, int pixels, int C, int n) {
    begin();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) dx[i] = dy[i / C / pixels * C + i % C] / pixels;
}

// x (N, pixels, C) with the planes of LabelPlanes behind its channels, and its backward. The label of image n lies in the last
// `classes` of the `width` numbers of row n of `labels`; behind the last row, the first is next.
extern "C" __global__ void join_planes(const Number* x, const Number* labels, Number* y, int pixels, int C, int classes, int rows,
                                       int width, int n) {
    begin();
    const int i = blockIdx.x * blockDim.x + threadIdx.x, pixel = i / (C + classes), c = i % (C + classes);
    if (i >= n) return;
    y[i] = c < C ? x[pixel * C + c] : labels[(pixel / pixels % rows + 1) * width - classes + c - C];
}

extern "C" __global__ void cut_planes(const Number* dy, Number* dx, int C, int classes, int n) {
    begin();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) dx[i] = dy[i / C * (C + classes) + i % C];
}

// The sum over the 256 threads of a block, in all of them. Between two calls, there must be a barrier.
template<class T>
__device__ T block_sum(T mine) {
    __shared__ T parts[256];
    parts[threadIdx.x] = mine;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    }
    __syncthreads();
    return parts[0];
}

// The losses of ../../losses.py, times weight; to the last two, target is the sign. A single block writes dscore; a thread gets the
// sums, over its scores, of the loss and of what is reported as D's opinion.
const int CROSS_ENTROPY = 0, LEAST_SQUARES = 1, WASSERSTEIN = 2, HINGE = 3;

__device__ float softplus(float s) { return fmaxf(s, 0) + log1pf(expf(-fabsf(s))); }

__device__ double2 loss_and_grad(const Number* score, Number* dscore, int N, int kind, float target, float weight) {
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
    return mine;
}

// An optimiser's step count goes up, and with it Adam's corrections 1 / (1 - beta^t)
__device__ void advance(int* t, float* corrections, double beta1, double beta2) {
    *t += 1;
    corrections[0] = 1 / (1 - pow(beta1, (double)*t));
    corrections[1] = 1 / (1 - pow(beta2, (double)*t));
}

// Numbers in a row of the log, which holds the losses and opinions of a step. The last is of a penalty: see penalty.cu
const int COLUMNS = 6;

struct Both { double2 real, fake; };
__device__ void operator+=(Both& sums, const Both& more) { sums.real += more.real, sums.fake += more.fake; }

// D's loss on N fake scores and, behind them, N real ones. Row step % log_rows of the log gets loss, D(x), D(G(z)).
// While the loss is at most rests_at, D rests: its corrections are 0, and Adam does nothing.
extern "C" __global__ void discriminator_loss(
        const Number* score, Number* dscore, int N, int kind, float real, float fake, float weight, float rests_at,
        int* t, float* corrections, double beta1, double beta2, float* log, int log_rows, int* step, int ends_step) {
    begin();
    Both sums = {loss_and_grad(score + N, dscore + N, N, kind, real, weight), loss_and_grad(score, dscore, N, kind, fake, weight)};
    sums = block_sum(sums);
    if (threadIdx.x != 0) return;
    const float loss = (sums.real.x + sums.fake.x) / N;
    float* row = log + *step % log_rows * COLUMNS;
    row[0] = loss, row[1] = sums.real.y / N, row[2] = sums.fake.y / N;
    corrections[0] = 0;
    if (!(loss <= rests_at)) advance(t, corrections, beta1, beta2);
    *step += ends_step;
}

// G's loss on the scores of its N fakes: the log gets it and D(G(z)) after D's update
extern "C" __global__ void generator_loss(
        const Number* score, Number* dscore, int N, int kind, float target, float weight,
        int* t, float* corrections, double beta1, double beta2, float* log, int log_rows, int* step) {
    begin();
    const double2 sums = block_sum(loss_and_grad(score, dscore, N, kind, target, weight));
    if (threadIdx.x != 0) return;
    float* row = log + *step % log_rows * COLUMNS;
    row[3] = sums.x / N, row[4] = sums.y / N;
    advance(t, corrections, beta1, beta2);
    *step += 1;
}

// Adam, as in ../optim.py, with m and v moved by rate = 1 - beta toward what is new. Products take the weights from w.
extern "C" __global__ void adam(float* theta, Number* w, float* m, float* v, const float* g, int n, const float* corrections,
                                float lr, float rate1, float rate2, float eps) {
    begin();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n || corrections[0] == 0) return;
    m[i] += rate1 * (g[i] - m[i]);
    v[i] += rate2 * (g[i] * g[i] - v[i]);
    theta[i] -= lr * (m[i] * corrections[0]) / (sqrtf(v[i] * corrections[1]) + eps);
    w[i] = theta[i];
}

// y = x, as products take it
extern "C" __global__ void convert(const float* x, Number* y, int n) {
    begin();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i];
}

// Average.step, as in ../optim.py
extern "C" __global__ void follow(float* average, const float* theta, int n, float rate, const int* t) {
    begin();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) average[i] += fmaxf(rate, 10.f / (9 + *t)) * (theta[i] - average[i]);
}
