// result[m][n] = the sum over k of left[m][k] * right[k][n], for matrices whose numbers lie anywhere in memory: in tiles, on
// tensor cores in TF32 or bfloat16, or in float32. conv.cu says what the matrices are.

#if BF16
typedef unsigned short Number;                                     // bfloat16: the upper half of a rounded float
#else
typedef float Number;
#endif
const int DEPTH = 32, THREADS = 128;
const int CHUNK = 16 / sizeof(Number);                             // numbers in 16 bytes, a row of load_matrices

// WIDTH numbers, 1 or 4, into shared memory, as the products take them
template<int WIDTH> __device__ void put(Number* to, const float* x) {
#if BF16
    if (WIDTH == 4) *(uint2*)to = make_uint2(two_bf16(x[0], x[1]), two_bf16(x[2], x[3]));
    else *to = two_bf16(x[0], 0);
#else
    auto prepared = [](float x) { return TF32 ? tf32(x) : x; };
    if (WIDTH == 4) *(float4*)to = make_float4(prepared(x[0]), prepared(x[1]), prepared(x[2]), prepared(x[3]));
    else *to = prepared(x[0]);
#endif
}

// LINES rows of the left matrix, or columns of the right one, by DEPTH of what is summed over, in shared memory. It is
// kept as it was in memory, where neighbours are neighbours along k or along the lines. PITCH puts what the threads of a
// warp read at a time in different banks.
template<int LINES, bool ALONG_K> struct alignas(16) Tile {
    static const int PITCH = ALONG_K ? DEPTH + CHUNK : LINES | 8;
    Number numbers[ALONG_K ? LINES : DEPTH][PITCH];

    __device__ Number& at(int line, int k) { return ALONG_K ? numbers[line][k] : numbers[k][line]; }

    // A thread's share of 16 lines by 2 CHUNKs, in the order in which mma wants a left piece: both halves of the lines for
    // the first CHUNK, then for the second. Of 16 columns, a right matrix has two pieces: registers 0 and 2, then 1 and
    // 3. With OF 8 lines, both halves are the same.
    template<int OF> __device__ void pieces(int line, int k, unsigned* piece) {
        const int lane = threadIdx.x % 32;
        if (ALONG_K)
            load_matrices(piece, &at(line + lane % OF, k + lane / 16 * CHUNK));
        else if (BF16)
            load_transposed(piece, &at(line + lane / 8 * 8 % OF, k + lane % 8 + lane / 16 * 8));
        else
            for (int i = 0; i < 4; i++)
                piece[i] = __float_as_uint(at(line + lane / 4 + i * 8 % OF, k + lane % 4 + i / 2 * 4));
    }
};

// Where a number of a matrix lies in memory, if it is there: beside an image there are zeros.
struct Found {
    const float* at;
    bool there;
};

// A place in an image or kernel, perhaps beside it, and its index. From there, (dh, dw) leads `offset` numbers further.
struct Place {
    int h, w, index;

    __device__ Found find(const float* image, int dh, int dw, int offset, unsigned height, unsigned width) const {
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

// A thread's share of a Tile on its way from the matrix in memory, WIDTH neighbours at a time. What it needs to know of its
// lines it finds out once.
template<int LINES, bool ALONG_K, int WIDTH, class Matrix> struct Reader {
    static const int ROUNDS = (LINES * DEPTH + THREADS * WIDTH - 1) / (THREADS * WIDTH);
    const Matrix& matrix;
    decltype(matrix.line(0u)) lines[ROUNDS];
    float numbers[ROUNDS][WIDTH];

    // The line and k of this thread in a round. Along k, neighbouring groups of threads are 4 lines apart: in other banks,
    // if they write bfloat16.
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

    __device__ void read(unsigned step, unsigned depth) {
        #pragma unroll
        for (int round = 0; round < ROUNDS; round++) {
            if (!inside(round)) break;
            Found found = matrix.find(lines[round], step, k(round));
            found.there = found.there && (depth % DEPTH == 0 || DEPTH * step + k(round) < depth);
            if (WIDTH == 4) {
                float4 four = found.there ? *(const float4*)found.at : make_float4(0, 0, 0, 0);
                numbers[round][0] = four.x, numbers[round][1 % WIDTH] = four.y;
                numbers[round][2 % WIDTH] = four.z, numbers[round][3 % WIDTH] = four.w;
            } else
                numbers[round][0] = found.there ? *found.at : 0;
        }
    }

    __device__ void write(Tile<LINES, ALONG_K>& tile) {
        #pragma unroll
        for (int round = 0; round < ROUNDS; round++)
            if (inside(round)) put<WIDTH>(&tile.at(line(round), k(round)), numbers[round]);
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
// four numbers of a piece. While one step of DEPTH is multiplied, the numbers of the next are on their way.
//
// With slices > 1, as many blocks divide the sum, and the last of them has the result.
template<int ROWS, int COLUMNS, bool LEFT_ALONG_K, int LEFT_WIDTH, bool RIGHT_ALONG_K, int RIGHT_WIDTH,
         class Left, class Right, class Result>
__device__ void product(unsigned M, unsigned N, unsigned depth, Left left, Right right, Result result,
                        unsigned slice, unsigned slices, float* shares, int* arrived) {
    const int WARPS_DOWN = ROWS < COLUMNS ? 1 : ROWS > COLUMNS ? 4 : 2, WARPS_ACROSS = 4 / WARPS_DOWN;
    const int DOWN = ROWS / WARPS_DOWN / 16, ACROSS = COLUMNS / WARPS_ACROSS / 8;           // pieces of a warp
    __shared__ Tile<ROWS, LEFT_ALONG_K> a[2];
    __shared__ Tile<COLUMNS, RIGHT_ALONG_K> b[2];
    const int warp = threadIdx.x / 32, q = threadIdx.x % 32 / 4, t = threadIdx.x % 4;       // 4q + t: see mma
    const int row = warp / WARPS_ACROSS * DOWN * 16, column = warp % WARPS_ACROSS * ACROSS * 8;
    const unsigned m0 = blockIdx.x * ROWS, n0 = blockIdx.y * COLUMNS;
    float sum[DOWN][ACROSS][4] = {};

    const unsigned steps = (depth + DEPTH - 1) / DEPTH, share = (steps + slices - 1) / slices;
    const unsigned begin = slice * share, end = min(steps, begin + share);
    Reader<ROWS, LEFT_ALONG_K, LEFT_WIDTH, Left> left_reader(left, m0);
    Reader<COLUMNS, RIGHT_ALONG_K, RIGHT_WIDTH, Right> right_reader(right, n0);
    if (begin < end) {
        left_reader.read(begin, depth), right_reader.read(begin, depth);
        left_reader.write(a[begin % 2]), right_reader.write(b[begin % 2]);
    }
    for (unsigned step = begin; step < end; step++) {
        __syncthreads();                           // this step's numbers are there, and nobody reads those of the last one,
        const bool more = step + 1 < end;          // in whose place the next ones will come
        if (more) left_reader.read(step + 1, depth), right_reader.read(step + 1, depth);
        auto& x = a[step % 2];
        auto& y = b[step % 2];
#if TF32 || BF16
        #pragma unroll
        for (int k = 0; k < DEPTH; k += 2 * CHUNK) {
            unsigned left_piece[DOWN][4], right_pieces[(ACROSS + 1) / 2][4];
            for (int i = 0; i < DOWN; i++) x.template pieces<16>(row + i * 16, k, left_piece[i]);
            for (int j = 0; j < ACROSS; j += 2)
                y.template pieces<ACROSS == 1 ? 8 : 16>(column + j * 8, k, right_pieces[j / 2]);
            for (int i = 0; i < DOWN; i++)
                for (int j = 0; j < ACROSS; j++)
                    mma(sum[i][j], left_piece[i], right_pieces[j / 2][j % 2], right_pieces[j / 2][j % 2 + 2]);
        }
#else
        #pragma unroll 1
        for (int k = 0; k < DEPTH; k++)
            for (int i = 0; i < DOWN; i++)
                for (int j = 0; j < ACROSS; j++)
                    for (int e = 0; e < 4; e++)
                        sum[i][j][e] += x.at(row + i * 16 + q + e / 2 * 8, k) * y.at(column + j * 8 + 2 * t + e % 2, k);
#endif
        if (more) left_reader.write(a[(step + 1) % 2]), right_reader.write(b[(step + 1) % 2]);
    }
    if (slices > 1 && !add_shares<DOWN * ACROSS * 4>(sum[0][0], slice, slices, shares, arrived)) return;
    #pragma unroll
    for (int i = 0; i < DOWN; i++)
        #pragma unroll
        for (int j = 0; j < ACROSS; j++)
            #pragma unroll
            for (int e = 0; e < 4; e++) {
                unsigned m = m0 + row + i * 16 + q + e / 2 * 8, n = n0 + column + j * 8 + 2 * t + e % 2;
                if (m < M && n < N) result(m, n, sum[i][j][e]);
            }
}
