// The functions of loops.py, each in one visit to memory. Arrays are of floats, in C's order; those of pixels have C channels, a
// multiple of WIDTH. What is computed stands in loops.py, with NumPy.
#include <string.h>

enum { WIDTH = 16 };                // floats in a vector, as the widest processors have them; others take several
typedef float vector __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

static vector load(const float* from) { return *(const vector*)from; }
static void store(float* to, vector v) { *(vector*)to = v; }
static long least(long a, long b) { return a < b ? a : b; }


// Sums over rows of C numbers, for COLUMNS channels at a time: of ROWS rows in floats, and of those sums in doubles

enum { ROWS = 64, COLUMNS = 256 };
typedef struct { vector part[COLUMNS / WIDTH]; double total[COLUMNS]; } sums;

static void end_row(sums* s, long row, long rows) {
    if (row % ROWS == ROWS - 1 || row == rows - 1) {
        for (int c = 0; c < COLUMNS; c++) s->total[c] += s->part[c / WIDTH][c % WIDTH];
        memset(s->part, 0, sizeof s->part);
    }
}

static void put(const sums* s, float* to, long columns) {
    for (int c = 0; c < columns; c++) to[c] = s->total[c];
}

void channel_sum(const float* x, float* sum, long rows, long C) {
    for (long left = 0; left < C; left += COLUMNS) {
        const long columns = least(COLUMNS, C - left);
        sums s = {0};
        for (long row = 0; row < rows; row++) {
            for (long c = 0; c < columns; c += WIDTH) s.part[c / WIDTH] += load(x + row * C + left + c);
            end_row(&s, row, rows);
        }
        put(&s, sum + left, columns);
    }
}

void centre(const float* x, const float* mu, float* centred, float* squares, long rows, long C) {
    for (long left = 0; left < C; left += COLUMNS) {
        const long columns = least(COLUMNS, C - left);
        sums s = {0};
        for (long row = 0; row < rows; row++) {
            for (long c = 0; c < columns; c += WIDTH) {
                vector difference = load(x + row * C + left + c) - load(mu + left + c);
                store(centred + row * C + left + c, difference);
                s.part[c / WIDTH] += difference * difference;
            }
            end_row(&s, row, rows);
        }
        put(&s, squares + left, columns);
    }
}

void sum_and_dot(const float* x, const float* y, float* sum, float* dot, long rows, long C) {
    for (long left = 0; left < C; left += COLUMNS) {
        const long columns = least(COLUMNS, C - left);
        sums s = {0}, d = {0};
        for (long row = 0; row < rows; row++) {
            for (long c = 0; c < columns; c += WIDTH) {
                vector here = load(x + row * C + left + c);
                s.part[c / WIDTH] += here;
                d.part[c / WIDTH] += here * load(y + row * C + left + c);
            }
            end_row(&s, row, rows), end_row(&d, row, rows);
        }
        put(&s, sum + left, columns);
        put(&d, dot + left, columns);
    }
}


// What has no sums

void scale(float* x, const float* rstd, const float* gamma, const float* beta, float* y, long rows, long C) {
    for (long row = 0; row < rows; row++, x += C, y += C)
        for (long c = 0; c < C; c += WIDTH) {
            vector xhat = load(x + c) * load(rstd + c);
            store(x + c, xhat);
            store(y + c, load(gamma + c) * xhat + load(beta + c));
        }
}

void scale_grad(const float* dy, const float* xhat, const float* slope, const float* mean_dy, const float* mean_dy_xhat, float* dx,
                long rows, long C) {
    for (long row = 0; row < rows; row++, dy += C, xhat += C, dx += C)
        for (long c = 0; c < C; c += WIDTH)
            store(dx + c, load(slope + c) * (load(dy + c) - load(mean_dy + c) - load(xhat + c) * load(mean_dy_xhat + c)));
}

void leaky_relu(const float* restrict x, float* restrict y, char* restrict above, float slope, long n) {
    for (long i = 0; i < n; i++) {
        above[i] = x[i] > 0;
        y[i] = x[i] > 0 ? x[i] : slope * x[i];
    }
}

void leaky_relu_grad(const float* restrict dy, const char* restrict above, float* restrict dx, float slope, long n) {
    for (long i = 0; i < n; i++) dx[i] = above[i] ? dy[i] : slope * dy[i];
}

// sum (q, n) += M (points, q).T W (points, n)
void add_product(const float* M, const float* W, float* sum, long points, long q, long n) {
    for (long at = 0; at < n; at += WIDTH)
        for (long i = 0; i < q; i++) {
            vector s = load(sum + i * n + at);
            for (long p = 0; p < points; p++) s += M[p * q + i] * load(W + p * n + at);
            store(sum + i * n + at, s);
        }
}


// Values of polynomials at points, and back: M tile M.T, for tiles of k x k pixels and n x n points

#define INLINE static inline __attribute__((always_inline))
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

// Pixel (i, j), among those with the same offsets of S x S neighbours, of tile t of all; null outside of its image
INLINE long pixel(geometry g, long t, int i, int j) {
    long column = t % g.S, row = t / g.S % g.S;
    t /= g.S * g.S;
    column += g.S * (g.m * (t % g.T) + j) - g.P, row += g.S * (g.m * (t / g.T % g.T) + i) - g.P;
    if (row < 0 || row >= g.H || column < 0 || column >= g.W) return -1;
    return ((t / g.T / g.T * g.H + row) * g.W + column) * g.C;
}

INLINE void of_each_tile(int n, int k, const float* M, const float* x, float* values, geometry g) {
    const long tiles = g.N * g.T * g.T * g.S * g.S;
    tile in, out;
    for (long t = 0; t < tiles; t++)
        for (long left = 0; left < g.C; left += TOGETHER * WIDTH) {
            const int vectors = least(TOGETHER, (g.C - left) / WIDTH);
            for (int i = 0; i < k; i++)
                for (int j = 0; j < k; j++) {
                    long from = pixel(g, t, i, j);
                    for (int v = 0; v < vectors; v++)
                        in.at[i * k + j][v] = from < 0 ? (vector){0} : load(x + from + left + v * WIDTH);
                }
            for (int v = 0; v < vectors; v++) along_both(M, n, k, &in, &out, v);
            for (int p = 0; p < n * n; p++)
                for (int v = 0; v < vectors; v++) store(values + (p * tiles + t) * g.C + left + v * WIDTH, out.at[p][v]);
        }
}

// Tiles overlap if they begin fewer than k pixels apart: what they have there is added up.
INLINE void to_each_tile(int n, int k, const float* M, const float* values, float* x, geometry g) {
    const long tiles = g.N * g.T * g.T * g.S * g.S;
    const int overlap = g.m < k && g.T > 1;
    tile in, out;
    memset(x, 0, sizeof *x * g.N * g.H * g.W * g.C);
    for (long t = 0; t < tiles; t++)
        for (long left = 0; left < g.C; left += TOGETHER * WIDTH) {
            const int vectors = least(TOGETHER, (g.C - left) / WIDTH);
            for (int p = 0; p < n * n; p++)
                for (int v = 0; v < vectors; v++) in.at[p][v] = load(values + (p * tiles + t) * g.C + left + v * WIDTH);
            for (int v = 0; v < vectors; v++) along_both(M, k, n, &in, &out, v);
            for (int i = 0; i < k; i++)
                for (int j = 0; j < k; j++) {
                    long at = pixel(g, t, i, j);
                    if (at < 0) continue;
                    for (int v = 0; v < vectors; v++) {
                        float* to = x + at + left + v * WIDTH;
                        vector sum = out.at[i * k + j][v];
                        if (overlap) sum += load(to);
                        store(to, sum);
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
