// The three products of ../conv.py on a GPU: forward, input_grad, weight_grad, each one tiled product of two matrices.
//
// Compiled for the sizes of one layer, which are constants here, named as in conv.py: x (N, H, W, C), y (N, OH, OW, F),
// w (K, K, C, F), stride S, padding P; only N, the images, is known when a kernel runs. The matrix cols of conv.py is
// never stored: the kernels read each of its numbers where it lies in the image. So the three differ in nothing but
// where a number of the left and of the right matrix lives, and where one of the result goes.
//
//     kernel         row m of the result    column n    summed over k       left[m][k]          right[k][n]
//     forward        (image, i, j)          f           (kh, kw, c)         x in the patch      w
//     input_grad     (image, u, v)          c           (patch, f)          dy of the patch     w
//     weight_grad    (kh, kw, c)            f           (image, i, j)       x in the patch      dy
//
// This is what libraries call an implicit GEMM, with a pipeline of STAGES and, where few tiles have long sums, split-K.
// With TF32 the products run on tensor cores, which read 10 of the 23 bits behind a number's point and add in float32.

const int TILE = 64, DEPTH = 16, STAGES = 4, THREADS = 128;
const int WIDTH_C = C % 4 ? 1 : 4, WIDTH_F = F % 4 ? 1 : 4;        // numbers of a pixel that can be copied at once
const int WIDTH_W = W_ALIGNED ? WIDTH_F : 1;
const int CLASS_C = S * S * C / CLASSES;                           // columns of a product of input_grad
const int TILE_F = F > 8 ? TILE : 8, TILE_C = CLASS_C > 8 ? TILE : 8;      // few channels need no wide tile,
const int TILE_W = K * K * C > 16 || F <= 8 ? TILE : 16;           // few rows of w no high one (16 x 8 is for one warp)

// LINES rows of the left matrix, or columns of the right one, by DEPTH of what is summed over, in shared memory. It is
// kept as it was in memory, where neighbours are neighbours along k or along the lines, and WIDTH of them are copied
// at once. At a time the threads 4q + t of a warp read line q and k = t: at 20 q + t, or at PITCH t + q with PITCH 8 or 24
// more than a multiple of 32, which is in 32 different banks.
template<int LINES, bool ALONG_K, int WIDTH> struct alignas(16) Tile {
    static const int PITCH = ALONG_K ? DEPTH + 4 : LINES | 8;
    float numbers[ALONG_K ? LINES : DEPTH][PITCH];

    __device__ float& at(int line, int k) { return ALONG_K ? numbers[line][k] : numbers[k][line]; }

    // Start copying the tile that begins at (line0, DEPTH * step). source(line, k) is where a number lies, null for
    // a zero.
    //
    // Finding it takes many divisions. The compiler can save most of them, as it sees that
    // - the number of rounds is a constant: they are unrolled, and share what is equal in all of them,
    // - which is k or the line, as threadIdx.x % THREADS (which changes nothing) is less than THREADS,
    // - and the sum's k / DEPTH, which is step: | can be no more than that, + could;
    // - indices have no sign, so that dividing by 2^n is a shift.
    template<class Source> __device__ void fetch(Source source, unsigned line0, unsigned step) {
        #pragma unroll
        for (unsigned first = 0; first < LINES * DEPTH; first += THREADS * WIDTH) {
            unsigned i = first + threadIdx.x % THREADS * WIDTH;
            if (i >= LINES * DEPTH) break;
            unsigned line = ALONG_K ? i / DEPTH : i % LINES, k = ALONG_K ? i % DEPTH : i / LINES;
            const float* from = source(line0 + line, DEPTH * step | k);
            if (WIDTH == 4) copy16(&at(line, k), from, from);
            else copy4(&at(line, k), from, from);
        }
    }
};

// For blocks that divide a sum, `slices` in number: each leaves its share in memory, where a thread's numbers lie beside
// those of the next. The last to come adds all shares, always in the same order, so that a result does not depend on
// which block that was; there the answer is true, and `sum` has become the whole.
template<int NUMBERS>
__device__ __forceinline__ bool add_shares(float* sum, unsigned slice, unsigned slices, float* shares, int* arrived) {
    const unsigned tile = blockIdx.y * gridDim.x + blockIdx.x, tiles = gridDim.x * gridDim.y;
    auto share = [=](unsigned slice) { return shares + (slice * tiles + tile) * NUMBERS * THREADS + threadIdx.x; };
    for (int i = 0; i < NUMBERS; i++) share(slice)[i * THREADS] = sum[i];
    if (!last_to_arrive(arrived + tile, slices)) return false;
    for (int i = 0; i < NUMBERS; i++) sum[i] = 0;
    #pragma unroll 64 / NUMBERS                    // 64 loads at a time: each takes as long as hundreds of additions
    for (unsigned z = 0; z < slices; z++)
        for (int i = 0; i < NUMBERS; i++) sum[i] += share(z)[i * THREADS];
    return true;
}

// result(m, n, sum over k < depth of left[m][k] * right[k][n]) for every m < M and n < N of the block's tile, which is
// ROWS x COLUMNS. Its four warps divide it into pieces of 16 x 8, the shape of the tensor cores' mma: each thread holds
// four numbers of a piece. While one step of DEPTH is multiplied, the copies for the next ones are under way.
//
// With slices > 1, as many blocks divide the sum, and the last of them has the result.
template<int ROWS, int COLUMNS, bool LEFT_ALONG_K, int LEFT_WIDTH, bool RIGHT_ALONG_K, int RIGHT_WIDTH,
         class Left, class Right, class Result>
__device__ void product(unsigned M, unsigned N, unsigned depth, Left left, Right right, Result result,
                        unsigned slice, unsigned slices, float* shares, int* arrived) {
    const int WARPS_DOWN = ROWS < COLUMNS ? 1 : ROWS > COLUMNS ? 4 : 2, WARPS_ACROSS = 4 / WARPS_DOWN;
    const int DOWN = ROWS / WARPS_DOWN / 16, ACROSS = COLUMNS / WARPS_ACROSS / 8;           // pieces of a warp
    __shared__ Tile<ROWS, LEFT_ALONG_K, LEFT_WIDTH> a[STAGES];
    __shared__ Tile<COLUMNS, RIGHT_ALONG_K, RIGHT_WIDTH> b[STAGES];
    const int warp = threadIdx.x / 32, q = threadIdx.x % 32 / 4, t = threadIdx.x % 4;       // 4q + t: see mma
    const int row = warp / WARPS_ACROSS * DOWN * 16 + q, column = warp % WARPS_ACROSS * ACROSS * 8;
    const unsigned m0 = blockIdx.x * ROWS, n0 = blockIdx.y * COLUMNS;
    float sum[DOWN][ACROSS][4] = {};

    const unsigned steps = (depth + DEPTH - 1) / DEPTH, share = (steps + slices - 1) / slices;
    const unsigned begin = slice * share, end = min(steps, begin + share);
    auto fetch = [&](unsigned step) {
        if (step < end) {
            a[step % STAGES].fetch(left, m0, step);
            b[step % STAGES].fetch(right, n0, step);
        }
        commit_copies();
    };
    for (int ahead = 0; ahead < STAGES - 1; ahead++) fetch(begin + ahead);
    for (unsigned step = begin; step < end; step++) {
        wait_copies<STAGES - 2>();                 // my copies for this step have come
        __syncthreads();                           // everybody's have, and nobody still reads those of the last one,
        fetch(step + STAGES - 1);                  // in whose place come new ones
        auto& x = a[step % STAGES];
        auto& y = b[step % STAGES];
        #pragma unroll
        for (int k = 0; k < DEPTH; k += 8) {
#if TF32
            unsigned left_piece[DOWN][4], right_piece[ACROSS][2];
            for (int i = 0; i < DOWN; i++)
                for (int e = 0; e < 4; e++)
                    left_piece[i][e] = tf32(x.at(row + i * 16 + e % 2 * 8, k + t + e / 2 * 4));
            for (int j = 0; j < ACROSS; j++)
                for (int e = 0; e < 2; e++)
                    right_piece[j][e] = tf32(y.at(column + j * 8 + q, k + t + e * 4));
            for (int i = 0; i < DOWN; i++)
                for (int j = 0; j < ACROSS; j++) mma(sum[i][j], left_piece[i], right_piece[j]);
#else
            #pragma unroll 1
            for (int l = k; l < k + 8; l++)
                for (int i = 0; i < DOWN; i++)
                    for (int j = 0; j < ACROSS; j++)
                        for (int e = 0; e < 4; e++)
                            sum[i][j][e] += x.at(row + i * 16 + e / 2 * 8, l) * y.at(column + j * 8 + 2 * t + e % 2, l);
#endif
        }
    }
    if (slices > 1 && !add_shares<DOWN * ACROSS * 4>(sum[0][0], slice, slices, shares, arrived)) return;
    #pragma unroll
    for (int i = 0; i < DOWN; i++)
        #pragma unroll
        for (int j = 0; j < ACROSS; j++)
            #pragma unroll
            for (int e = 0; e < 4; e++) {
                unsigned m = m0 + row + i * 16 + e / 2 * 8, n = n0 + column + j * 8 + 2 * t + e % 2;
                if (m < M && n < N) result(m, n, sum[i][j][e]);
            }
}

// Term k of a sum over places in the image and their channels: DEPTH channels of every place, then the next DEPTH. (Place
// by place, if DEPTH does not divide them.) So where patches share a pixel, reads of it after the first may find it in the
// multiprocessor's own cache.
template<int PLACES, int CHANNELS> struct Term {
    unsigned place, channel;

    __device__ Term(unsigned k) {
        const bool WHOLE = CHANNELS % DEPTH == 0;
        place = WHOLE ? k / DEPTH % PLACES : k / CHANNELS;
        channel = WHOLE ? k / DEPTH / PLACES * DEPTH + k % DEPTH : k % CHANNELS;
    }
};

// The nth column of cols, and row of w, in that order: forward sums over them, weight_grad has a row for each. If S divides
// K, kh = rh + S th and kw = rw + S tw come in the order of (rh, rw, th, tw), as neighbouring patches read the same pixels
// for the same rh and rw.
struct Column {
    unsigned kh, kw, c;

    __device__ Column(unsigned n) {
        const unsigned R = K % S ? 1 : S, T = K / R;
        Term<K * K, C> term(n);
        kh = term.place / T / T / R + R * (term.place / T % T);
        kw = term.place / T / T % R + R * (term.place % T);
        c = term.channel;
    }

    __device__ unsigned row_of_w() const { return (kh * K + kw) * C + c; }
};

// Where a column of cols has its number for a patch, row (image, i, j), in x; null beside the image
__device__ __forceinline__ const float* in_patch(const float* x, unsigned row, Column column) {
    int j = row % OW, i = row / OW % OH, image = row / OW / OH;
    int h = S * i + column.kh - P, w = S * j + column.kw - P;
    return 0 <= h && h < H && 0 <= w && w < W ? &x[((image * H + h) * W + w) * C + column.c] : nullptr;
}

// y = cols @ w, and perhaps + b and through an activation
extern "C" __global__ void __launch_bounds__(THREADS, 4) forward(
        const float* x, const float* w, const float* b, float* y, int N, int activation, float slope,
        float* shares, int* arrived) {
    const unsigned M = N * OH * OW, DEEP = K * K * C;
    product<TILE, TILE_F, true, WIDTH_C, false, WIDTH_W>(M, F, DEEP,
        [=](unsigned m, unsigned k) { return m < M && k < DEEP ? in_patch(x, m, Column(k)) : nullptr; },
        [=](unsigned f, unsigned k) { return f < F && k < DEEP ? &w[Column(k).row_of_w() * F + f] : nullptr; },
        [=](unsigned m, unsigned f, float sum) { y[m * F + f] = activate(sum + b[f % BIASES], activation, slope); },
        blockIdx.z, gridDim.z, shares, arrived);
}

// dw = cols.T @ dy
extern "C" __global__ void __launch_bounds__(THREADS, 4) weight_grad(
        const float* x, const float* dy, float* dw, int N, float* shares, int* arrived) {
    const unsigned M = K * K * C, DEEP = N * OH * OW;
    product<TILE_W, TILE_F, false, WIDTH_C, false, WIDTH_F>(M, F, DEEP,
        [=](unsigned m, unsigned k) { return m < M && k < DEEP ? in_patch(x, k, Column(m)) : nullptr; },
        [=](unsigned f, unsigned k) { return f < F && k < DEEP ? &dy[k * F + f] : nullptr; },
        [=](unsigned m, unsigned f, float sum) { dw[Column(m).row_of_w() * F + f] = sum; },
        blockIdx.z, gridDim.z, shares, arrived);
}

// dx = the sum of dy w over all patches that a pixel was part of; as a layer's forward (ConvTranspose2d) perhaps + b
// and through an activation. Nothing is scattered: each pixel is written once.
//
// Along one side, pixel h = S u + r was number kh = h + P - S i of patch i, if 0 <= kh < K. The last such patch is
// i = (h + P) / S = u + (r + P) / S, rounded down, and there are EACH = K / S, rounded up, or one less. So with di = 0, 1 ...
// EACH - 1, i = u + first + di and kh = r + P - S (first + di), the same for all pixels of a class, those of one r. Each
// class is a product of its own, over (di, dj, f), and blockIdx.z says which. But if all classes together have few channels
// (CLASSES is 1), they are the columns (rh, rw, c) of one product, over the REACH patches that any class needs.
extern "C" __global__ void __launch_bounds__(THREADS, 4) input_grad(
        const float* dy, const float* w, const float* b, float* dx, int N, int activation, float slope) {
    const int UH = (H + S - 1) / S, UW = (W + S - 1) / S, EACH = (K + S - 1) / S;
    const int REACH = EACH + (CLASSES == 1 && P % S);              // one more: those of the last class may end one later
    const unsigned M = N * UH * UW, DEEP = REACH * REACH * F, rh = blockIdx.z / S, rw = blockIdx.z % S;
    const int first_i = int(rh + P) / S - EACH + 1, first_j = int(rw + P) / S - EACH + 1;
    product<TILE, TILE_C, true, WIDTH_F, true, WIDTH_W>(M, CLASS_C, DEEP,
        [=](unsigned m, unsigned k) -> const float* {
            Term<REACH * REACH, F> patch(k);
            int i = m / UW % UH + first_i + patch.place / REACH, j = m % UW + first_j + patch.place % REACH;
            bool valid = m < M && k < DEEP && 0 <= i && i < OH && 0 <= j && j < OW;
            return valid ? &dy[((m / UW / UH * OH + i) * OW + j) * F + patch.channel] : nullptr;
        },
        [=](unsigned n, unsigned k) -> const float* {
            Term<REACH * REACH, F> patch(k);
            int kh = rh + n / C / S + P - S * (first_i + patch.place / REACH);
            int kw = rw + n / C % S + P - S * (first_j + patch.place % REACH);
            bool valid = n < CLASS_C && k < DEEP && 0 <= kh && kh < K && 0 <= kw && kw < K;
            return valid ? &w[((kh * K + kw) * C + n % C) * F + patch.channel] : nullptr;
        },
        [=](unsigned m, unsigned n, float sum) {
            int row = S * (m / UW % UH) + rh + n / C / S, column = S * (m % UW) + rw + n / C % S, c = n % C;
            if (row < H && column < W)
                dx[((m / UW / UH * H + row) * W + column) * C + c] = activate(sum + b[c % BIASES], activation, slope);
        },
        0, 1, nullptr, nullptr);
}
