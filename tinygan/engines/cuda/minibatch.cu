// What a training step begins with: noise, and a minibatch of images with their labels.

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

// What a random number is for: add_noise has purposes 1 and 2, for fake and for real images
const int NOISE = 0, EPSILON = 3;

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
extern "C" __global__ void noise(Number* z, int n, const int* step, unsigned seed_low, unsigned seed_high) {
    begin();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (4 * i >= n) return;
    float four[4];
    normal(four, i, *step, NOISE, seed_low, seed_high);
    for (int k = 0; k < 4 && 4 * i + k < n; k++) z[4 * i + k] = four[k];
}

// y = x + noise of standard deviation sd; x and y may be the same array
extern "C" __global__ void add_noise(const Number* x, Number* y, int n, float sd, const int* step,
                                     unsigned seed_low, unsigned seed_high, int purpose) {
    begin();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (4 * i >= n) return;
    float four[4];
    normal(four, i, *step, purpose, seed_low, seed_high);
    for (int k = 0; k < 4 && 4 * i + k < n; k++) y[4 * i + k] = x[4 * i + k] + sd * four[k];
}

// Which image is number n of this step's minibatch of N, as ../../data/images.py has it: they are taken in the epoch's order,
// where ~i stands for image i, flipped
__device__ int chosen(const int* order, int step, int steps_per_epoch, int N, int n) {
    return order[step % steps_per_epoch * N + n];
}

// x = the minibatch, of images uint8 (H, W, C) of `numbers` each
extern "C" __global__ void minibatch(const unsigned char* images, const int* order, Number* x, int N, int numbers, int W, int C,
                                     const int* step, int steps_per_epoch, float scale, float black) {
    begin();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= N * numbers) return;
    const int image = chosen(order, *step, steps_per_epoch, N, i / numbers);
    int place = i % numbers;
    if (image < 0) place += (W - 1 - 2 * (place / C % W)) * C;
    x[i] = images[(long long)(image < 0 ? ~image : image) * numbers + place] * scale + black;
}

// Over the last `classes` of the `width` numbers in each row of z: a 1 for the label of the image, and 0s
extern "C" __global__ void put_labels(const int* labels, const int* order, Number* z, int N, int width, int classes,
                                      const int* step, int steps_per_epoch) {
    begin();
    const int i = blockIdx.x * blockDim.x + threadIdx.x, n = i / classes, c = i % classes;
    if (n >= N) return;
    const int image = chosen(order, *step, steps_per_epoch, N, n);
    z[(n + 1) * width - classes + c] = labels[image < 0 ? ~image : image] == c ? 1.f : 0.f;
}
