// The functions of loops.py, which says with NumPy what each computes, in one visit to memory
#include "vectors.h"


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

void add_bias(float* y, const float* b, long rows, long C) {
    for (long row = 0; row < rows; row++, y += C)
        for (long c = 0; c < C; c += WIDTH) store(y + c, load(y + c) + load(b + c));
}

// Patches (N, OH, OW, K, K, C) of images (N, H, W, C) with P pixels of zeros around them, S apart
void gather(const float* x, float* patches, long N, long H, long W, long C, long OH, long OW, long K, long S, long P) {
    for (long image = 0; image < N; image++, x += H * W * C)
        for (long oh = 0; oh < OH; oh++)
            for (long ow = 0; ow < OW; ow++)
                for (long k = 0; k < K; k++, patches += K * C) {
                    const long row = S * oh + k - P, left = S * ow - P, first = left < 0 ? -left : 0, end = least(K, W - left);
                    if (row < 0 || row >= H || first || end < K) memset(patches, 0, sizeof *x * K * C);
                    if (row >= 0 && row < H && first < end)
                        memcpy(patches + first * C, x + (row * W + left + first) * C, sizeof *x * (end - first) * C);
                }
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
