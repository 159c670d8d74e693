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
// This is what libraries call an implicit GEMM and, where few tiles have long sums, split-K. In TF32 and
// bfloat16 they run on tensor cores, which add in float32 but read 10 or 7 of the 23 bits behind a number's point.

const int TILE = 64, BLOCKS = 3;                                   // of which a multiprocessor shall hold BLOCKS at once
const int WIDTH_C = C % 4 ? 1 : 4, WIDTH_F = F % 4 ? 1 : 4;        // numbers of a pixel that can be read at once
const int WIDTH_W = W_ALIGNED ? WIDTH_F : 1;
const int CLASS_C = S * S * C / CLASSES;                           // columns of a product of input_grad
const int TILE_F = F > 8 ? TILE : 8, TILE_C = CLASS_C > 8 ? TILE : 8;      // few channels need no wide tile,
const int TILE_W = K * K * C > 16 || F <= 8 ? TILE : 16;           // few rows of w no high one (16 x 8 is for one warp)

// Term DEPTH * step + k of a sum over places in the image and their channels: DEPTH channels of every place, then the next
// DEPTH. (Place by place, if DEPTH does not divide them.) So where patches share a pixel, reads of it after the first may find
// it in the multiprocessor's own cache.
template<int PLACES, int CHANNELS> struct Term {
    unsigned place, channel;

    __device__ Term(unsigned step, unsigned k) {
        const bool WHOLE = CHANNELS % DEPTH == 0;
        place = WHOLE ? step % PLACES : (DEPTH * step + k) / CHANNELS;
        channel = WHOLE ? step / PLACES * DEPTH + k : (DEPTH * step + k) % CHANNELS;
    }
};

// The nth column of cols, and row of w, in that order: forward sums over them, weight_grad has a row for each. If S divides
// K, kh = rh + S th and kw = rw + S tw come in the order of (rh, rw, th, tw), as neighbouring patches read the same pixels
// for the same rh and rw.
struct Column {
    unsigned kh, kw, c;

    Column() = default;
    __device__ Column(unsigned n) : Column(n / DEPTH, n % DEPTH) {}
    __device__ Column(unsigned step, unsigned k) {
        const unsigned R = K % S ? 1 : S, T = K / R;
        Term<K * K, C> term(step, k);
        kh = term.place / T / T / R + R * (term.place / T % T);
        kw = term.place / T / T % R + R * (term.place % T);
        c = term.channel;
    }

    __device__ unsigned row_of_w() const { return (kh * K + kw) * C + c; }
};

// Where patch `row`, (image, i, j), begins in x
__device__ __forceinline__ Place patch(unsigned row, unsigned rows) {
    int h = S * int(row / OW % OH) - P, w = S * int(row % OW) - P;
    return {row < rows ? h : NOWHERE, w, ((int(row / OW / OH) * H + h) * W + w) * C};
}

__device__ __forceinline__ Found in_patch(const float* x, Place patch, Column column) {
    return patch.find(x, column.kh, column.kw, (column.kh * W + column.kw) * C + column.c, H, W);
}

// y = cols @ w, and perhaps + b and through an activation
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) forward(
        const float* x, const float* w, const float* b, float* y, int N, int activation, float slope,
        float* shares, int* arrived) {
    const unsigned M = N * OH * OW, DEEP = K * K * C;
    product<TILE, TILE_F, true, WIDTH_C, false, WIDTH_W>(M, F, DEEP,
        matrix([=](unsigned m) { return patch(m, M); },
               [=](Place patch, unsigned step, unsigned k) { return in_patch(x, patch, Column(step, k)); }),
        matrix([=](unsigned f) { return f; },
               [=](unsigned f, unsigned step, unsigned k) { return Found{w + Column(step, k).row_of_w() * F + f, f < F}; }),
        [=](unsigned m, unsigned f, float sum) { y[m * F + f] = activate(sum + b[f % BIASES], activation, slope); },
        blockIdx.z, gridDim.z, shares, arrived);
}

// dw = cols.T @ dy, or dw += that
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) weight_grad(
        const float* x, const float* dy, float* dw, int N, int adds, float* shares, int* arrived) {
    const unsigned M = K * K * C, DEEP = N * OH * OW;
    product<TILE_W, TILE_F, false, WIDTH_C, false, WIDTH_F>(M, F, DEEP,
        matrix([=](unsigned m) { return Column(min(m, M - WIDTH_C)); },             // behind the last: not kept, but read
               [=](Column column, unsigned step, unsigned k) {
                   return in_patch(x, patch(DEPTH * step + k, DEEP), column);
               }),
        matrix([=](unsigned f) { return f; },
               [=](unsigned f, unsigned step, unsigned k) { return Found{dy + (DEPTH * step + k) * F + f, f < F}; }),
        [=](unsigned m, unsigned f, float sum) {
            float& place = dw[Column(m).row_of_w() * F + f];
            place = adds ? place + sum : sum;
        },
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
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) input_grad(
        const float* dy, const float* w, const float* b, float* dx, int N, int activation, float slope) {
    const int UH = (H + S - 1) / S, UW = (W + S - 1) / S, EACH = (K + S - 1) / S;
    const int REACH = EACH + (CLASSES == 1 && P % S);              // one more: those of the last class may end one later
    const unsigned M = N * UH * UW, DEEP = REACH * REACH * F, rh = blockIdx.z / S, rw = blockIdx.z % S;
    const int first_i = int(rh + P) / S - EACH + 1, first_j = int(rw + P) / S - EACH + 1;
    product<TILE, TILE_C, true, WIDTH_F, true, WIDTH_W>(M, CLASS_C, DEEP,
        matrix([=](unsigned m) {
                   int i = int(m / UW % UH) + first_i, j = int(m % UW) + first_j;
                   return Place{m < M ? i : NOWHERE, j, ((int(m / UW / UH) * OH + i) * OW + j) * F};
               },
               [=](Place place, unsigned step, unsigned k) {
                   Term<REACH * REACH, F> patch(step, k);
                   int di = patch.place / REACH, dj = patch.place % REACH;
                   return place.find(dy, di, dj, (di * OW + dj) * F + patch.channel, OH, OW);
               }),
        matrix([=](unsigned n) {
                   int kh = rh + n / C / S + P - S * first_i, kw = rw + n / C % S + P - S * first_j;
                   return Place{n < CLASS_C ? kh : NOWHERE, kw, ((kh * K + kw) * C + int(n % C)) * F};
               },
               [=](Place place, unsigned step, unsigned k) {
                   Term<REACH * REACH, F> patch(step, k);
                   int dh = -S * int(patch.place / REACH), dw = -S * int(patch.place % REACH);
                   return place.find(w, dh, dw, (dh * K + dw) * C * F + patch.channel, K, K);
               }),
        [=](unsigned m, unsigned n, float sum) {
            int row = S * (m / UW % UH) + rh + n / C / S, column = S * (m % UW) + rw + n / C % S, c = n % C;
            if (row < H && column < W)
                dx[((m / UW / UH * H + row) * W + column) * C + c] = activate(sum + b[c % BIASES], activation, slope);
        },
        0, 1, nullptr, nullptr);
}
