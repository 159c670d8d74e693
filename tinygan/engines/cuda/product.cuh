// result[m][n] = the sum over k of left[m][k] * right[k][n], for matrices whose numbers lie anywhere in memory: in tiles, on
// tensor cores in TF32 or bfloat16, or in float32. conv.cu says what the matrices are.

const int THREADS = 128, STAGES = 2;                               // tiles of each matrix in shared memory
const int CHUNK = 16 / sizeof(Number);                             // numbers in 16 bytes, a row of load_matrices

// How far a tile goes in the direction in which a sum has that many terms: 128 bytes, or less for a few, or where each is copied
// alone, which takes too many registers
__device__ constexpr int depth_of(int terms, int at_once) {
    return at_once == 1 || terms <= 16 ? 16 : terms >= 8 * CHUNK ? 8 * CHUNK : (terms + 15) / 16 * 16;
}

// How many neighbours of n can be copied at once
__device__ constexpr int copied_at_once(int n) { return n % CHUNK == 0 ? CHUNK : n % 4 == 0 ? 4 : 1; }

// LINES rows of the left matrix, or columns of the right one, by DEPTH terms of the sum, in shared memory. It is
// kept as it was in memory, where neighbours are neighbours along k or along the lines. PITCH puts what the threads of a
// warp read at a time in different banks.
template<int LINES, int DEPTH, bool ALONG_K> struct alignas(16) Tile {
    static const int PITCH = ALONG_K ? DEPTH + CHUNK : LINES | 8;
    Number numbers[ALONG_K ? LINES : DEPTH][PITCH];

    __device__ Number& at(int line, int k) { return ALONG_K ? numbers[line][k] : numbers[k][line]; }

    // A thread's share of 16 lines by 2 CHUNKs, as mma wants it. In a left piece, registers 0 and 1 have both halves of the lines
    // for the first CHUNK, 2 and 3 for the second. A right matrix has two pieces there, for 8 columns each: 0 and 1 are both
    // CHUNKs of the first, 2 and 3 of the second. With OF 8 lines, both are the same.
    template<bool LEFT, int OF> __device__ void pieces(int line, int k, unsigned* piece) {
        const int lane = threadIdx.x % 32, i = lane / 8;
        const int half = (LEFT ? i % 2 : i / 2) * 8 % OF, chunk = LEFT ? i / 2 : i % 2;
        if (ALONG_K)
            load_matrices(piece, &at(line + half + lane % 8, k + chunk * CHUNK));
        else if (BF16)
            load_transposed(piece, &at(line + half, k + chunk * CHUNK + lane % 8));
        else
            for (int i = 0; i < 4; i++)
                piece[i] = __float_as_uint(at(line + (LEFT ? i % 2 : i / 2) * 8 % OF + lane / 4,
                                              k + (LEFT ? i / 2 : i % 2) * CHUNK + lane % 4));
    }
};

// Where a number of a matrix lies in memory, if it is there: beside an image there are zeros.
struct Found {
    const Number* at;
    bool there;
};

// A place in an image or kernel, perhaps beside it, and its index. From there, (dh, dw) leads `offset` numbers further.
struct Place {
    int h, w, index;

    __device__ Found find(const Number* image, int dh, int dw, int offset, unsigned height, unsigned width) const {
        return {image + (index + offset), unsigned(h + dh) < height && unsigned(w + dw) < width};
    }
};

const int NOWHERE = -2000000;                      // far beside every image

// A matrix as Reader takes it: line(n) is what has to be known of line n, find(line, step, k) where its number DEPTH * step + k
// lies.
template<class Line, class Find> struct Matrix {
    Line line;
    Find find;
};
template<class Line, class Find> __device__ Matrix<Line, Find> matrix(Line line, Find find) { return {line, find}; }

// A thread's share of a Tile, on its way from the matrix in memory, WIDTH neighbours at a time. What it needs to know of its
// lines it finds out once.
template<int LINES, int DEPTH, bool ALONG_K, int WIDTH, class Matrix> struct Reader {
    static const int ROUNDS = (LINES * DEPTH + THREADS * WIDTH - 1) / (THREADS * WIDTH);
    const Matrix& matrix;
    decltype(matrix.line(0u)) lines[ROUNDS];

    // The line and k of this thread in a round. Along k, bits 0 and 2 of the line change places: so neighbouring groups of threads
    // are 4 lines apart, in other banks, if they write bfloat16.
    __device__ static unsigned index(int round) { return (round * THREADS + threadIdx.x % THREADS) * WIDTH; }
    __device__ static bool inside(int round) {
        return LINES * DEPTH % (THREADS * WIDTH) == 0 || index(round) < LINES * DEPTH;
    }
    __device__ static unsigned line(int round) {
        unsigned n = index(round) / DEPTH;
        return ALONG_K ? n & ~5 | n % 2 * 4 | n / 4 % 2 : index(round) % LINES;
    }
    __device__ static unsigned k(int round) { return ALONG_K ? index(round) % DEPTH : index(round) / LINES; }

    __device__ Reader(const Matrix& matrix, unsigned line0) : matrix(matrix) {
        #pragma unroll
        for (int round = 0; round < ROUNDS; round++) lines[round] = matrix.line(line0 + line(round));
    }

    __device__ void copy(Tile<LINES, DEPTH, ALONG_K>& tile, unsigned step, unsigned depth) {
        #pragma unroll
        for (int round = 0; round < ROUNDS; round++) {
            if (!inside(round)) break;
            Found found = matrix.find(lines[round], step, k(round));
            found.there = found.there && (depth % DEPTH == 0 || DEPTH * step + k(round) < depth);
            Number& to = tile.at(line(round), k(round));
            if constexpr (WIDTH * sizeof(Number) >= 4) copy_async<WIDTH * sizeof(Number)>(&to, found.at, found.there);
            else to = found.there ? *found.at : Number(0.f);
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

// For each number of a tile of sums in shared memory, calls what is to be done with it, and then, for each column, total(n, sums)
// with two sums of what came out. A thread has WIDTH neighbours of a row at a time: columns(n, each) is asked for what there is to
// do with columns n, n + 1 ..., and calls each(load, use); that calls use(sums, load(place of the row), two) for all its rows, and
// several loads before the first use, as memory is far. use writes the two numbers of each column that are to be summed up.
template<int ROWS, int COLUMNS, int WIDTH, class Place, class Columns, class Total>
__device__ void use_sums(const float (*sums)[COLUMNS + 8], const Place* places, float2 (*totals)[COLUMNS], int rows, unsigned n0,
                         unsigned N, Columns columns, Total total) {
    const int ACROSS = COLUMNS / WIDTH, HEIGHT = THREADS / ACROSS, AT_ONCE = ROWS / HEIGHT < 8 ? (ROWS + HEIGHT - 1) / HEIGHT : 8;
    const int x = threadIdx.x % ACROSS * WIDTH, y = threadIdx.x / ACROSS;
    const unsigned n = n0 + x;
    float2 mine[WIDTH] = {};
    columns(min(n, N - WIDTH), [&](auto load, auto use) {
        #pragma unroll 1
        for (int i0 = y; i0 < rows && n < N; i0 += AT_ONCE * HEIGHT) {
            decltype(load(places[0])) loaded[AT_ONCE];
            #pragma unroll
            for (int i = 0; i < AT_ONCE; i++)
                if (i0 + i * HEIGHT < rows) loaded[i] = load(places[i0 + i * HEIGHT]);
            #pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                if (i0 + i * HEIGHT >= rows) break;
                float sum[WIDTH];
                float2 two[WIDTH] = {};
                for (int k = 0; k < WIDTH; k++) sum[k] = sums[i0 + i * HEIGHT][x + k];
                use(sum, loaded[i], two);
                for (int k = 0; k < WIDTH; k++) mine[k].x += two[k].x, mine[k].y += two[k].y;
            }
        }
    });
    __syncthreads();                               // nobody reads the sums any more, in whose place the totals come
    for (int k = 0; k < WIDTH; k++) totals[y][x + k] = mine[k];
    __syncthreads();
    if (threadIdx.x >= COLUMNS || n0 + threadIdx.x >= N) return;
    float2 all = make_float2(0, 0);
    for (int i = 0; i < HEIGHT; i++) all.x += totals[i][threadIdx.x].x, all.y += totals[i][threadIdx.x].y;
    total(n0 + threadIdx.x, all);
}

// The sum over k < depth of left[m][k] * right[k][n] for all m of ROWS from m0 on and n of COLUMNS from n0 on, which are a block's
// tile. Its four warps divide it into pieces of 16 x 8, the shape of the tensor cores' mma: each thread holds four numbers of a
// piece. While one step of DEPTH is multiplied, the numbers of the next one are on their way.
//
// With slices > 1, as many blocks divide the sum. If there is room for their shares, the last of them has the whole; else, each
// has its share. What is to be known of row m of the result, one thread finds out, place(m); the rest does use_sums, for m < M.
template<int ROWS, int COLUMNS, int DEPTH, bool LEFT_ALONG_K, int LEFT_WIDTH, bool RIGHT_ALONG_K, int RIGHT_WIDTH, int WIDTH,
         class Left, class Right, class Place, class Columns, class Total>
__device__ void product(unsigned m0, unsigned M, unsigned N, unsigned depth, Left left, Right right, Place place, Columns columns,
                        Total total, unsigned slice, unsigned slices, float* shares, int* arrived) {
    const int WARPS_DOWN = ROWS < COLUMNS ? 1 : ROWS > COLUMNS ? 4 : 2, WARPS_ACROSS = 4 / WARPS_DOWN;
    const int DOWN = ROWS / WARPS_DOWN / 16, ACROSS = COLUMNS / WARPS_ACROSS / 8;           // pieces of a warp
    struct Tiles {
        Tile<ROWS, DEPTH, LEFT_ALONG_K> a[STAGES];
        Tile<COLUMNS, DEPTH, RIGHT_ALONG_K> b[STAGES];
    };
    __shared__ union {
        Tiles tiles;
        float sums[ROWS][COLUMNS + 8];
        float2 totals[THREADS * WIDTH / COLUMNS][COLUMNS];
    } shared;
    __shared__ decltype(place(0u)) places[ROWS];
    const int warp = threadIdx.x / 32, q = threadIdx.x % 32 / 4, t = threadIdx.x % 4;       // 4q + t: see mma
    const int row = warp / WARPS_ACROSS * DOWN * 16, line = warp % WARPS_ACROSS * ACROSS * 8;
    const unsigned n0 = blockIdx.y * COLUMNS;
    float sum[DOWN][ACROSS][4] = {};

    const unsigned steps = (depth + DEPTH - 1) / DEPTH, share = (steps + slices - 1) / slices;
    const unsigned begin = slice * share, end = min(steps, begin + share);
    Reader<ROWS, DEPTH, LEFT_ALONG_K, LEFT_WIDTH, Left> left_reader(left, m0);
    Reader<COLUMNS, DEPTH, RIGHT_ALONG_K, RIGHT_WIDTH, Right> right_reader(right, n0);
    auto fetch = [&](unsigned step) {
        if (step < end) {
            left_reader.copy(shared.tiles.a[step % STAGES], step, depth);
            right_reader.copy(shared.tiles.b[step % STAGES], step, depth);
        }
        commit_copies();
    };
    for (int i = 0; i < STAGES - 1; i++) fetch(begin + i);
    for (unsigned step = begin; step < end; step++) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();                           // this step's numbers are there, and nobody reads those of the last one,
        fetch(step + STAGES - 1);                  // in whose place the next ones come
        auto& x = shared.tiles.a[step % STAGES];
        auto& y = shared.tiles.b[step % STAGES];
#if TF32 || BF16
        #pragma unroll
        for (int k = 0; k < DEPTH; k += 2 * CHUNK) {
            unsigned left_piece[DOWN][4], right_pieces[(ACROSS + 1) / 2][4];
            for (int i = 0; i < DOWN; i++) x.template pieces<true, 16>(row + i * 16, k, left_piece[i]);
            for (int j = 0; j < ACROSS; j += 2)
                y.template pieces<false, ACROSS == 1 ? 8 : 16>(line + j * 8, k, right_pieces[j / 2]);
            for (int i = 0; i < DOWN; i++)
                for (int j = 0; j < ACROSS; j++)
                    mma(sum[i][j], left_piece[i], right_pieces[j / 2][j % 2 * 2], right_pieces[j / 2][j % 2 * 2 + 1]);
        }
#else
        #pragma unroll 1
        for (int k = 0; k < DEPTH; k++)
            for (int i = 0; i < DOWN; i++)
                for (int j = 0; j < ACROSS; j++)
                    for (int e = 0; e < 4; e++)
                        sum[i][j][e] += x.at(row + i * 16 + q + e / 2 * 8, k) * y.at(line + j * 8 + 2 * t + e % 2, k);
#endif
    }
    if (slices > 1 && shares && !add_shares<DOWN * ACROSS * 4>(sum[0][0], slice, slices, shares, arrived)) return;

    __syncthreads();                               // nobody reads the tiles any more
    if (threadIdx.x < ROWS) places[threadIdx.x] = place(m0 + threadIdx.x);
    for (int i = 0; i < DOWN; i++)
        for (int j = 0; j < ACROSS; j++)
            for (int half = 0; half < 2; half++)
                *(float2*)&shared.sums[row + i * 16 + q + half * 8][line + j * 8 + 2 * t] =
                    make_float2(sum[i][j][2 * half], sum[i][j][2 * half + 1]);
    __syncthreads();
    use_sums<ROWS, COLUMNS, WIDTH>(shared.sums, places, shared.totals, min(M - m0, ROWS), n0, N, columns, total);
}
