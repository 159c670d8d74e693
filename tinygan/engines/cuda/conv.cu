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

const int TILE = 64, BLOCKS = 4;                                   // of which a multiprocessor shall hold BLOCKS at once
const int WIDTH_C = copied_at_once(C), WIDTH_F = copied_at_once(F);          // numbers of a pixel
const int WIDTH_W = W_ALIGNED ? WIDTH_F : 1;
const int OUT_C = C % 4 ? 1 : 4, OUT_F = F % 4 ? 1 : 4;            // numbers of a result that one thread has
const int CLASS_C = S * S * C / CLASSES;                           // columns of a product of input_grad
const int TILE_F = F > 8 ? TILE : 8, TILE_C = CLASS_C > 8 ? TILE : 8;      // few channels need no wide tile,
const int DEPTH_X = depth_of(K * K * C, WIDTH_C < WIDTH_W ? WIDTH_C : WIDTH_W);        // steps of forward's sum
const int TILE_W = K * K * C > 16 || F <= 8 ? TILE : 16;           // few rows of w no high one (16 x 8 is for one warp)

// Term DEPTH * step + k of a sum over places in the image and their channels: DEPTH channels of every place, then the next
// DEPTH. (Place by place, if DEPTH does not divide them.) So where patches share a pixel, reads of it after the first may find
// it in the multiprocessor's own cache.
template<int PLACES, int CHANNELS, int DEPTH> struct Term {
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
    __device__ Column(unsigned n) : Column(n / DEPTH_X, n % DEPTH_X) {}
    __device__ Column(unsigned step, unsigned k) {
        const unsigned R = K % S ? 1 : S, T = K / R;
        Term<K * K, C, DEPTH_X> term(step, k);
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

__device__ __forceinline__ Found in_patch(const Number* x, Place patch, Column column) {
    return patch.find(x, column.kh, column.kw, (column.kh * W + column.kw) * C + column.c, H, W);
}

// What follows a product, forward: y = activation(x), where x = sum + b, with the sums of x - mu and its square, for BatchNorm. Or
// backward: d = sum * the activation's derivative, in terms of its output y, with the sums of d, for db or dbeta,
// and, BACKWARD_NORM, of d * xhat for dgamma. Each block leaves its part of those sums in a row of its own.
const int FORWARD = 0, BACKWARD_NORM = 2;                          // BACKWARD is 1

struct After {
    int kind;
    Number* out;
    const float* b;
    const Number *y, *pre;
    const float *mu, *rstd;
    int channels, activation;
    float slope;
    int sums;                                  // are they wanted?

    // For a block's numbers in WIDTH columns from n on: see use_sums. at(place) says where they go, if anywhere.
    template<int WIDTH, class At, class Each> __device__ void columns(int group, int n, At at, Each each) const {
        const After my = *this;
        if (kind == FORWARD) {
            float b[WIDTH], pivot[WIDTH];
            for (int k = 0; k < WIDTH; k++) b[k] = my.b[(n + k) % channels], pivot[k] = sums ? mu[(n + k) % channels] : 0;
            each(at, [=](const float* sum, int i, float2* two) {
                if (i < 0) return;
                float x[WIDTH];
                for (int k = 0; k < WIDTH; k++) {
                    x[k] = sum[k] + b[k];
                    two[k] = make_float2(x[k] - pivot[k], (x[k] - pivot[k]) * (x[k] - pivot[k]));
                }
                activate<WIDTH>(x, my.activation, my.slope);
                neighbours<WIDTH>(my.out + i).take(x);
            });
            return;
        }
        struct Below { int i; Neighbours<WIDTH> y, pre; };
        const bool norm = kind == BACKWARD_NORM;
        const Slope slope_at(activation, slope);
        float mean[WIDTH], scale[WIDTH];
        for (int k = 0; k < WIDTH; k++) {
            const int c = group * channels + (n + k) % channels;
            mean[k] = norm ? mu[c] : 0, scale[k] = norm ? rstd[c] : 0;
        }
        each([=](auto place) {
                 Below below;
                 below.i = at(place);
                 if (below.i >= 0) below.y = neighbours<WIDTH>(my.y + below.i);
                 if (below.i >= 0 && norm) below.pre = neighbours<WIDTH>(my.pre + below.i);
                 return below;
             },
             [=](const float* sum, Below below, float2* two) {
                 if (below.i < 0) return;
                 float d[WIDTH];
                 for (int k = 0; k < WIDTH; k++) {
                     d[k] = sum[k] * slope_at(below.y[k]);
                     two[k] = make_float2(d[k], norm ? d[k] * (below.pre[k] - mean[k]) * scale[k] : 0);
                 }
                 neighbours<WIDTH>(my.out + below.i).take(d);
             });
    }
};

// The rows of a block's tile, begin + 0, 1 ... TILE - 1 as far as they are before end: those of each group are divided into tiles.
struct Rows {
    unsigned group, begin, end;

    __device__ Rows(unsigned rows, unsigned groups) {
        const unsigned each = rows / groups, tiles = (each + TILE - 1) / TILE;
        group = blockIdx.x / tiles;
        begin = group * each + blockIdx.x % tiles * TILE;
        end = (group + 1) * each;
    }
};

// y = cols @ w
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) forward(
        const Number* x, const Number* w, int N, int groups, int kind, Number* out, const float* b, const Number* y,
        const Number* pre, const float* mu, const float* rstd, int channels, int activation, float slope, float2* parts,
        int sums, float* shares, int* arrived) {
    begin();
    const unsigned M = N * OH * OW, DEEP = K * K * C;
    const Rows rows(M, groups);
    const After after = {kind, out, b, y, pre, mu, rstd, channels, activation, slope, sums};
    product<TILE, TILE_F, DEPTH_X, true, WIDTH_C, false, WIDTH_W, OUT_F>(rows.begin, rows.end, F, DEEP,
        matrix([=](unsigned m) { return patch(m, M); },
               [=](Place patch, unsigned step, unsigned k) { return in_patch(x, patch, Column(step, k)); }),
        matrix([=](unsigned f) { return f; },
               [=](unsigned f, unsigned step, unsigned k) { return Found{w + Column(step, k).row_of_w() * F + f, f < F}; }),
        [=](unsigned m) { return int(m * F); },
        [=](unsigned f, auto each) { after.columns<OUT_F>(rows.group, f, [=](int place) { return place + int(f); }, each); },
        [=](unsigned f, float2 part) { if (sums) parts[blockIdx.x * F + f] = part; },
        blockIdx.z, gridDim.z, shares, arrived);
}

// The same where y is one number for each image, the whole of which is a patch: there is a block for each
extern "C" __global__ void __launch_bounds__(THREADS) score(
        const Number* x, const Number* w, const float* b, Number* y, int activation, float slope) {
    begin();
    const int WIDTH = W_ALIGNED ? WIDTH_C : 1;
    __shared__ float sums[THREADS];
    float sum = 0;
    for (int i0 = threadIdx.x * WIDTH; i0 < C; i0 += 8 * THREADS * WIDTH) {
        Neighbours<WIDTH> left[8], right[8];   // on their way at the same time
        #pragma unroll
        for (int n = 0; n < 8; n++)
            if (int i = i0 + n * THREADS * WIDTH; i < C)
                left[n] = neighbours<WIDTH>(x + blockIdx.x * C + i), right[n] = neighbours<WIDTH>(w + i);
        #pragma unroll
        for (int n = 0; n < 8; n++)
            for (int k = 0; k < WIDTH && i0 + n * THREADS * WIDTH < C; k++) sum += left[n][k] * right[n][k];
    }
    sums[threadIdx.x] = sum;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x > 0) return;
    sum = sums[0] + b[0];
    activate<1>(&sum, activation, slope);
    y[blockIdx.x] = sum;
}

// dw = cols.T @ dy, or dw += that. Slices of the sum leave their shares one behind the other.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) weight_grad(
        const Number* x, const Number* dy, float* dw, int N, int adds) {
    begin();
    const int M = K * K * C, DEPTH = 8 * CHUNK;
    const unsigned DEEP = N * OH * OW;
    dw += blockIdx.z * M * F;
    product<TILE_W, TILE_F, DEPTH, false, WIDTH_C, false, WIDTH_F, OUT_F>(blockIdx.x * TILE_W, M, F, DEEP,
        matrix([=](unsigned m) { return Column(min(m, unsigned(M - WIDTH_C))); },       // behind the last: not kept, but read
               [=](Column column, unsigned step, unsigned k) {
                   return in_patch(x, patch(DEPTH * step + k, DEEP), column);
               }),
        matrix([=](unsigned f) { return f; },
               [=](unsigned f, unsigned step, unsigned k) { return Found{dy + (DEPTH * step + k) * F + f, f < F}; }),
        [](unsigned m) { return Column(m).row_of_w(); },
        [=](unsigned f, auto each) {
            each([=](unsigned row) { return row * F + f; },
                 [=](const float* sum, unsigned i, float2*) {
                     for (int k = 0; k < OUT_F; k++) dw[i + k] = adds ? dw[i + k] + sum[k] : sum[k];
                 });
        },
        [](unsigned, float2) {}, blockIdx.z, gridDim.z, nullptr, nullptr);
}

// dx = the sum of dy w over all patches that a pixel was part of. Nothing is scattered: each pixel is written once.
//
// Along one side, pixel h = S u + r was number kh = h + P - S i of patch i, if 0 <= kh < K. The last such patch is
// i = (h + P) / S = u + (r + P) / S, rounded down, and there are EACH = K / S, rounded up, or one less. So with di = 0, 1 ...
// EACH - 1, i = u + first + di and kh = r + P - S (first + di), the same for all pixels of a class, those of one r. Each
// class is a product of its own, over (di, dj, f), and blockIdx.z says which. But if all classes together have few channels
// (CLASSES is 1), they are the columns (rh, rw, c) of one product, over the REACH patches that any class needs.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) input_grad(
        const Number* dy, const Number* w, int N, int groups, int kind, Number* out, const float* b, const Number* y,
        const Number* pre, const float* mu, const float* rstd, int channels, int activation, float slope, float2* parts,
        int sums) {
    begin();
    const int UH = (H + S - 1) / S, UW = (W + S - 1) / S, EACH = (K + S - 1) / S;
    const int REACH = EACH + (CLASSES == 1 && P % S);              // one more: those of the last class may end one later
    const int DEPTH = depth_of(REACH * REACH * F, WIDTH_W);
    const unsigned M = N * UH * UW, DEEP = REACH * REACH * F, rh = blockIdx.z / S, rw = blockIdx.z % S;
    const Rows rows(M, groups);
    const After after = {kind, out, b, y, pre, mu, rstd, channels, activation, slope, sums};
    const int first_i = int(rh + P) / S - EACH + 1, first_j = int(rw + P) / S - EACH + 1;
    product<TILE, TILE_C, DEPTH, true, WIDTH_F, true, WIDTH_W, OUT_C>(rows.begin, rows.end, CLASS_C, DEEP,
        matrix([=](unsigned m) {
                   int i = int(m / UW % UH) + first_i, j = int(m % UW) + first_j;
                   return Place{m < M ? i : NOWHERE, j, ((int(m / UW / UH) * OH + i) * OW + j) * F};
               },
               [=](Place place, unsigned step, unsigned k) {
                   Term<REACH * REACH, F, DEPTH> patch(step, k);
                   int di = patch.place / REACH, dj = patch.place % REACH;
                   return place.find(dy, di, dj, (di * OW + dj) * F + patch.channel, OH, OW);
               }),
        matrix([=](unsigned n) {
                   int kh = rh + n / C / S + P - S * first_i, kw = rw + n / C % S + P - S * first_j;
                   return Place{n < CLASS_C ? kh : NOWHERE, kw, ((kh * K + kw) * C + int(n % C)) * F};
               },
               [=](Place place, unsigned step, unsigned k) {
                   Term<REACH * REACH, F, DEPTH> patch(step, k);
                   int dh = -S * int(patch.place / REACH), dw = -S * int(patch.place % REACH);
                   return place.find(w, dh, dw, (dh * K + dw) * C * F + patch.channel, K, K);
               }),
        [=](unsigned m) {
            int h = S * (m / UW % UH) + rh, w = S * (m % UW) + rw;
            return Place{h, w, (int(m / UW / UH * H + h) * W + w) * C};
        },
        [=](unsigned n, auto each) {
            const int dh = n / C / S, dw = n / C % S, offset = (dh * W + dw) * C + n % C;
            auto at = [=](Place place) { return place.h + dh < H && place.w + dw < W ? place.index + offset : -1; };
            after.columns<OUT_C>(rows.group, n, at, each);
        },
        [=](unsigned n, float2 part) { if (sums) parts[(blockIdx.x * CLASSES + blockIdx.z) * CLASS_C + n] = part; },
        0, 1, nullptr, nullptr);
}
