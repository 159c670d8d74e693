// What the methods of Plan in toomcook.py say with NumPy: products at the points, and the way there and back
#include "vectors.h"


// Products at each point with the values of w, W[p] = the sum over the taps i of B[p][i] w[i], and w's gradient by theirs. W is
// made a panel at a time, some columns of it, where it is used; to BLAS one would have to hand all of it.

#define INLINE static inline __attribute__((always_inline))
enum { POINTS = 8, DEEP = 256 };    // at most so many panels are made together, of so many rows,
enum { SHALLOW = 64 };              // and so many terms of the sum that the gradient is are added at a time

// A panel has WIDE vectors, or 2 or 1 where fewer columns are left.
static long width(long columns) {
    return WIDTH * (columns >= WIDE * WIDTH ? WIDE : WIDE > 2 && columns >= 2 * WIDTH ? 2 : 1);
}

// Where channel n of S*S*C at a tap of r*r begins in weights (r*S, r*S, C, F)
static long place(long tap, long n, long r, long S, long C, long F) {
    const long row = tap / r * S + n / C / S, column = tap % r * S + n / C % S;
    return ((row * r * S + column) * C + n % C) * F;
}

// Weights to r*r matrices (S*S*C, F), or (F, S*S*C). A panel has its columns of the first matrix, then those of the second, ...
void to_panels(const float* w, float* panels, long r, long S, long C, long F, long transposed) {
    const long channels = S * S * C, columns = transposed ? channels : F, depth = transposed ? F : channels;
    for (long first = 0, wide; first < columns; first += wide, panels += r * r * depth * wide) {
        wide = width(columns - first);
        for (long column = first; column < first + wide; column += WIDTH)
            for (long tap = 0; tap < r * r; tap++)
                for (long d = 0; d < depth; d += WIDTH) {
                    const float* from = w + (transposed ? place(tap, column, r, S, C, F) + d : place(tap, d, r, S, C, F) + column);
                    float* to = panels + (tap * depth + d) * wide + column - first;
                    for (int i = 0; i < WIDTH; i++)
                        if (!transposed) store(to + i * wide, load(from + i * F));
                        else for (int j = 0; j < WIDTH; j++) to[j * wide + i] = from[i * F + j];
                }
    }
}

typedef struct { vector at[TALL][WIDE]; } block;

// out (rows, vectors) = or += a (rows, depth) panel (depth, vectors), where a has K columns and out F
INLINE void rows_of_product(int rows, int vectors, const float* a, long K, const float* panel, float* out, long F, long depth,
                            int adds) {
    block sum;
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) sum.at[i][v] = adds ? load(out + i * F + v * WIDTH) : (vector){0};
    for (long k = 0; k < depth; k++)
        for (int i = 0; i < rows; i++)
            for (int v = 0; v < vectors; v++) sum.at[i][v] += a[i * K + k] * load(panel + (k * vectors + v) * WIDTH);
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) store(out + i * F + v * WIDTH, sum.at[i][v]);
}

// out (points, M, vectors) = or += a (points, M, depth) W (points, depth, vectors), which is made in `panels`
INLINE void times_panels(int taps, int vectors, const float* B, const float* w, const float* a, float* out, float* panels,
                         long points, long M, long K, long F, long depth, int adds) {
    const long size = depth * vectors * WIDTH;
    for (long at = 0; at < size; at += WIDTH) {
        vector tap[taps];
        for (int i = 0; i < taps; i++) tap[i] = load(w + i * K * vectors * WIDTH + at);
        for (int p = 0; p < points; p++) {
            vector sum = B[p * taps] * tap[0];
            for (int i = 1; i < taps; i++) sum += B[p * taps + i] * tap[i];
            store(panels + p * size + at, sum);
        }
    }
    for (int p = 0; p < points; p++, a += M * K, out += M * F, panels += size) {
        long m = 0;
        for (; m + TALL <= M; m += TALL) rows_of_product(TALL, vectors, a + m * K, K, panels, out + m * F, F, depth, adds);
        for (; m + 2 <= M; m += 2) rows_of_product(2, vectors, a + m * K, K, panels, out + m * F, F, depth, adds);
        if (m < M) rows_of_product(1, vectors, a + m * K, K, panels, out + m * F, F, depth, adds);
    }
}

// out (points, M, F) = values (points, M, K) W (points, K, F), with w from to_panels and room for panels of W
void multiply(const float* B, const float* w, const float* values, float* out, float* room, long points, long taps, long M, long K,
              long F) {
    if (M == 0) return;
    const long together = M >= 512 ? 1 : least(POINTS, 512 / M);      // or their values would not stay in the cache
    for (long p = 0; p < points; p += together, B += together * taps, values += together * M * K, out += together * M * F)
        for (long f = 0, wide; f < F; f += wide) {
            wide = width(F - f);
            for (long k = 0; k < K; k += DEEP) {
                const long n = least(together, points - p), depth = least(DEEP, K - k);
                const float *from = w + f * taps * K + k * wide, *a = values + k;
                if (wide == WIDTH) times_panels(taps, 1, B, from, a, out + f, room, n, M, K, F, depth, k > 0);
                else if (wide < WIDE * WIDTH) times_panels(taps, 2, B, from, a, out + f, room, n, M, K, F, depth, k > 0);
                else if (taps == 4) times_panels(4, WIDE, B, from, a, out + f, room, n, M, K, F, depth, k > 0);
                else times_panels(taps, WIDE, B, from, a, out + f, room, n, M, K, F, depth, k > 0);
            }
        }
}

// W (rows, vectors) = or += X.T Y, for so many channels of X (depth, K), and Y (depth, F). When it is complete, B[i] W is added to
// each w[i] (K, vectors), and W itself need not be kept.
INLINE void rows_of_gradient(int rows, int vectors, const float* B, long taps, const float* X, const float* Y, float* W, float* w,
                             long K, long F, long depth, int adds, int completes) {
    block sum;
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) sum.at[i][v] = adds ? load(W + (i * vectors + v) * WIDTH) : (vector){0};
    for (long k = 0; k < depth; k++) {
        __builtin_prefetch(X + k * K + 16, 0, 2);           // a column's numbers lie far from one another
        for (int i = 0; i < rows; i++)
            for (int v = 0; v < vectors; v++) sum.at[i][v] += X[k * K + i] * load(Y + k * F + v * WIDTH);
    }
    if (!completes)
        for (int i = 0; i < rows; i++)
            for (int v = 0; v < vectors; v++) store(W + (i * vectors + v) * WIDTH, sum.at[i][v]);
    else
        for (long tap = 0; tap < taps; tap++, w += K * vectors * WIDTH)
            for (int i = 0; i < rows; i++)
                for (int v = 0; v < vectors; v++) {
                    float* to = w + (i * vectors + v) * WIDTH;
                    store(to, load(to) + B[tap] * sum.at[i][v]);
                }
}

INLINE void add_gradient(int vectors, const float* B, long taps, const float* X, const float* Y, float* W, float* w, long K, long F,
                         long depth, int adds, int completes) {
    const long next = vectors * WIDTH;
    long n = 0;
    for (; n + TALL <= K; n += TALL)
        rows_of_gradient(TALL, vectors, B, taps, X + n, Y, W + n * next, w + n * next, K, F, depth, adds, completes);
    for (; n < K; n += 2)
        rows_of_gradient(2, vectors, B, taps, X + n, Y, W + n * next, w + n * next, K, F, depth, adds, completes);
}

// dw (r*S, r*S, C, F), the sum over the points of B[p] and X[p].T Y[p], for X (points, M, S*S*C) and Y (points, M, F), with room
// for a panel of it (r*r, S*S*C, columns), and of W
void weight_grad(const float* B, const float* X, const float* Y, float* dw, float* room, long points, long M, long r, long S,
                 long C, long F) {
    const long K = S * S * C, taps = r * r;
    for (long f = 0, wide; f < F; f += wide) {
        wide = width(F - f);
        float* W = room + taps * K * wide;
        memset(room, 0, sizeof *room * taps * K * wide);
        for (long p = 0; p < points; p++)
            for (long m = 0; m < M; m += SHALLOW) {
                const float *b = B + p * taps, *x = X + (p * M + m) * K, *y = Y + (p * M + m) * F + f;
                const long depth = least(SHALLOW, M - m), completes = m + depth == M;
                if (wide == WIDTH) add_gradient(1, b, taps, x, y, W, room, K, F, depth, m > 0, completes);
                else if (wide < WIDE * WIDTH) add_gradient(2, b, taps, x, y, W, room, K, F, depth, m > 0, completes);
                else add_gradient(WIDE, b, taps, x, y, W, room, K, F, depth, m > 0, completes);
            }
        for (long tap = 0; tap < taps; tap++)
            for (long n = 0; n < K; n++)
                memcpy(dw + place(tap, n, r, S, C, F) + f, room + (tap * K + n) * wide, sizeof *dw * wide);
    }
}


// Values of polynomials at points, and back: M tile M.T, for tiles of k x k pixels and n x n points

enum { MOST = 8, TOGETHER = 4 };            // points in one dimension; vectors of channels that a tile is read and written in

typedef struct { vector at[MOST * MOST][TOGETHER]; } tile;

// to (rows, rows) = M from (columns, columns) M.T, for M (rows, columns): first along the columns, then along the rows
INLINE void along_both(const float* M, int rows, int columns, const tile* from, tile* to, int v) {
    vector half[MOST][MOST], x[MOST];
    for (int j = 0; j < columns; j++) {
        for (int i = 0; i < columns; i++) x[i] = from->at[i * columns + j][v];
        for (int a = 0; a < rows; a++) {
            vector sum = M[a * columns] * x[0];
            for (int i = 1; i < columns; i++) sum += M[a * columns + i] * x[i];
            half[a][j] = sum;
        }
    }
    for (int a = 0; a < rows; a++)
        for (int b = 0; b < rows; b++) {
            vector sum = M[b * columns] * half[a][0];
            for (int j = 1; j < columns; j++) sum += M[b * columns + j] * half[a][j];
            to->at[a * rows + b][v] = sum;
        }
}

typedef struct { long N, H, W, C, S, P, T, m; } geometry;       // images (N, H, W, C), and Plan's S, P, T and m

// Of all tiles of all images, and each offset in S x S, the one with number t: its image, which it is there, down and across, and
// where its first pixel would lie
typedef struct { long image, down, across, row, column; } place_of_tile;

INLINE place_of_tile find(geometry g, long t) {
    const long offset = t % (g.S * g.S), number = t / (g.S * g.S), across = number % g.T, down = number / g.T % g.T;
    return (place_of_tile){number / (g.T * g.T), down, across, g.S * g.m * down + offset / g.S - g.P,
                           g.S * g.m * across + offset % g.S - g.P};
}

// Where the channels of its pixel (i, j) begin; -1 outside of the image
INLINE long pixel(geometry g, place_of_tile first, int i, int j) {
    const long row = first.row + g.S * i, column = first.column + g.S * j;
    return row < 0 || row >= g.H || column < 0 || column >= g.W ? -1 : ((first.image * g.H + row) * g.W + column) * g.C;
}

INLINE void of_each_tile(int n, int k, const float* M, const float* x, float* values, geometry g) {
    const long tiles = g.N * g.T * g.T * g.S * g.S;
    tile in, out;
    for (long t = 0; t < tiles; t++) {
        const place_of_tile first = find(g, t);
        for (long left = 0; left < g.C; left += TOGETHER * WIDTH) {
            const int vectors = least(TOGETHER, (g.C - left) / WIDTH);
            for (int i = 0; i < k; i++)
                for (int j = 0; j < k; j++) {
                    const long from = pixel(g, first, i, j);
                    for (int v = 0; v < vectors; v++)
                        in.at[i * k + j][v] = from < 0 ? (vector){0} : load(x + from + left + v * WIDTH);
                }
            for (int v = 0; v < vectors; v++) along_both(M, n, k, &in, &out, v);
            for (int p = 0; p < n * n; p++)
                for (int v = 0; v < vectors; v++) store(values + (p * tiles + t) * g.C + left + v * WIDTH, out.at[p][v]);
        }
    }
}

// Tiles overlap by k - m pixels. There, a tile adds to what those before it, above and to the left, have left.
INLINE void to_each_tile(int n, int k, const float* M, const float* values, float* x, geometry g) {
    const long tiles = g.N * g.T * g.T * g.S * g.S;
    const long covered = g.S * (g.m * (g.T - 1) + k) - g.P;
    tile in, out;
    if (covered < g.H || covered < g.W) memset(x, 0, sizeof *x * g.N * g.H * g.W * g.C);
    for (long t = 0; t < tiles; t++) {
        const place_of_tile first = find(g, t);
        for (long left = 0; left < g.C; left += TOGETHER * WIDTH) {
            const int vectors = least(TOGETHER, (g.C - left) / WIDTH);
            for (int p = 0; p < n * n; p++)
                for (int v = 0; v < vectors; v++) in.at[p][v] = load(values + (p * tiles + t) * g.C + left + v * WIDTH);
            for (int v = 0; v < vectors; v++) along_both(M, k, n, &in, &out, v);
            for (int i = 0; i < k; i++)
                for (int j = 0; j < k; j++) {
                    const long at = pixel(g, first, i, j);
                    const int adds = (i < k - g.m && first.down) || (j < k - g.m && first.across);
                    if (at < 0) continue;
                    for (int v = 0; v < vectors; v++) {
                        float* to = x + at + left + v * WIDTH;
                        vector sum = out.at[i * k + j][v];
                        if (adds) sum += load(to);
                        store(to, sum);
                    }
                }
        }
    }
}

// The usual sizes as constants, which the compiler makes faster loops of
#define WITH_SIZES(function, ...) \
    if (n == 8 && k == 8) function(8, 8, __VA_ARGS__); \
    else if (n == 8 && k == 7) function(8, 7, __VA_ARGS__); \
    else if (n == 5 && k == 5) function(5, 5, __VA_ARGS__); \
    else if (n == 5 && k == 4) function(5, 4, __VA_ARGS__); \
    else function(n, k, __VA_ARGS__);

void of_tiles(const float* M, const float* x, float* values, long n, long k, long N, long H, long W, long C, long S, long P, long T,
               long m) {
    const geometry g = {N, H, W, C, S, P, T, m};
    WITH_SIZES(of_each_tile, M, x, values, g)
}

void to_tiles(const float* M, const float* values, float* x, long n, long k, long N, long H, long W, long C, long S, long P, long T,
              long m) {
    const geometry g = {N, H, W, C, S, P, T, m};
    WITH_SIZES(to_each_tile, M, values, x, g)
}
