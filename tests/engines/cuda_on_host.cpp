// Runs CUDA kernels that have been compiled for the CPU with cuda_on_host.h.
//
// Each thread of a block is a fiber, and the blocks run one after another. A thread runs alone until it has
// to wait for others, for its block at __syncthreads(), for its warp at __syncwarp(), mma() or a shuffle.
// That is one of the orders a GPU may choose, and `reverse` makes it the opposite one: a kernel that needs a
// barrier it does not have is often wrong in one of the two; if it is right in both, races_on_host.h still finds
// what it lacks. Shared memory holds NaN until it is written, in every block anew. What a GPU would leave undefined
// ends the run, with a message instead of a result.
//
// Not here: blocks that wait for one another, dynamic shared memory, masks of less than a whole warp, recursion.
#define _GLIBCXX_INCLUDE_NEXT_C_HEADERS     // C's own headers: the abs() of libstdc++'s is not CUDA's
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#ifdef __linux__
#include <link.h>
#endif
#undef _GLIBCXX_INCLUDE_NEXT_C_HEADERS

#include "cuda_on_host.h"

namespace on_host {

const int WARP = 32, MAX_THREADS = 1024, STACK_BYTES = 1 << 16;
const int MAX_COPIES = 256;         // that a thread may have under way
const char RETURNED[] = "", BARRIER[] = "__syncthreads()", WARP_BARRIER[] = "__syncwarp()";

struct Copy {
    void* to;
    const void* from;               // null for zeros
    int bytes;
    unsigned group;
};

struct Fiber {
    bool begun;
    ucontext_t beginning;
    jmp_buf here;                   // where it goes on
    char* stack;
    const char* place;              // what it waits at,
    int line;                       // of the .cu source,
    void (*operation)(Fiber* warp); // and what is to be done once its whole warp is there,
    void* operands[3];              // with these
    int source, bytes;
    Copy* copies;                   // its asynchronous copies, a ring,
    unsigned begun_copies, done_copies, groups;     // and how many of them, and groups, there were in this block
};

static Fiber *fibers, *current;     // `current` is null while the scheduler runs
static jmp_buf scheduler, failure;
static void (*kernel)();
void** arguments;
static char message[600];
static char* shared_memory;
static size_t shared_bytes;

static uint3 position(int thread) {
    unsigned row = thread / blockDim.x;
    return {thread % blockDim.x, row % blockDim.y, row / blockDim.y};
}

static uint3 block_position(unsigned long block) {
    unsigned long row = block / gridDim.x;
    return {unsigned(block % gridDim.x), unsigned(row % gridDim.y), unsigned(row / gridDim.y)};
}

// Ends the whole run; on the GPU it might have gone on, with anything as its result.
[[noreturn]] static void fail(const char* format, ...) {
    int used = snprintf(message, sizeof message, "block (%u, %u, %u)", blockIdx.x, blockIdx.y, blockIdx.z);
    if (current)
        used += snprintf(message + used, sizeof message - used, ", thread (%u, %u, %u)", threadIdx.x,
                         threadIdx.y, threadIdx.z);
    used += snprintf(message + used, sizeof message - used, ": ");
    va_list values;
    va_start(values, format);
    vsnprintf(message + used, sizeof message - used, format, values);
    va_end(values);
    _longjmp(failure, 1);
}

}  // namespace on_host

#include "races_on_host.h"

namespace on_host {

static void on_signal(int number, siginfo_t* info, void*) {
    if (number == SIGFPE) fail("an integer divided by zero");
    fail("address %p belongs to no array", info->si_addr);
}

// Called where a thread must wait for others: back to the scheduler, until it is this thread's turn again.
static void wait_at(const char* place, int line, void (*operation)(Fiber*) = nullptr) {
    current->place = place;
    current->line = line;
    current->operation = operation;
    asm volatile("" ::: "memory");
    if (!_setjmp(current->here)) _longjmp(scheduler, 1);
}

// A fiber lives on from block to block: making one anew costs more than most threads' work.
static void all_blocks() {
    for (;;) {
        kernel();
        wait_at(RETURNED, 0);
    }
}

static void begin(Fiber& fiber) {
    if (!fiber.stack) fiber.stack = static_cast<char*>(malloc(STACK_BYTES));
    getcontext(&fiber.beginning);
    fiber.beginning.uc_stack.ss_sp = fiber.stack;
    fiber.beginning.uc_stack.ss_size = STACK_BYTES;
    fiber.beginning.uc_link = nullptr;
    makecontext(&fiber.beginning, all_blocks, 0);
    fiber.begun = true;
    setcontext(&fiber.beginning);
}

// Returns when the thread waits, or has returned.
static void run_thread(int thread) {
    current = &fibers[thread];
    threadIdx = position(thread);
    watch_thread(thread);
    if (!_setjmp(scheduler)) {
        if (current->begun) _longjmp(current->here, 1);
        begin(*current);
    }
    current = nullptr;
}

static void describe(int thread, char* text, size_t size) {
    uint3 p = position(thread);
    const Fiber& fiber = fibers[thread];
    if (fiber.place == RETURNED) snprintf(text, size, "thread (%u, %u, %u) has returned", p.x, p.y, p.z);
    else snprintf(text, size, "thread (%u, %u, %u) waits at %s in line %d", p.x, p.y, p.z, fiber.place,
                  fiber.line);
}

static void must_agree(int one, int other) {
    if (fibers[one].place == fibers[other].place && fibers[one].line == fibers[other].line) return;
    char first[200], second[200];
    describe(one, first, sizeof first);
    describe(other, second, sizeof second);
    fail("%s, but %s", first, second);
}

// Until its threads wait for other warps.
static void run_warp(int first, int lanes, bool reverse) {
    const Fiber& leader = fibers[first];
    do {
        for (int lane = 0; lane < lanes; lane++) run_thread(first + (reverse ? lanes - 1 - lane : lane));
        for (int lane = 1; lane < lanes; lane++) must_agree(first, first + lane);
        if (leader.operation) {
            if (lanes < WARP) fail("%s in line %d needs 32 threads", leader.place, leader.line);
            leader.operation(&fibers[first]);
        }
        if (leader.place == WARP_BARRIER) warp_has_met(first / WARP);
    } while (leader.place != RETURNED && leader.place != BARRIER);
}

static void run_block(bool reverse) {
    int threads = blockDim.x * blockDim.y * blockDim.z, warps = (threads + WARP - 1) / WARP;
    memset(shared_memory, 0xff, shared_bytes);
    for (int thread = 0; thread < threads; thread++)
        fibers[thread].begun_copies = fibers[thread].done_copies = fibers[thread].groups = 0;
    do {
        for (int turn = 0; turn < warps; turn++) {
            int first = WARP * (reverse ? warps - 1 - turn : turn);
            run_warp(first, threads - first < WARP ? threads - first : WARP, reverse);
        }
        for (int warp = 1; warp < warps; warp++) must_agree(0, WARP * warp);
        block_has_met();
    } while (fibers[0].place != RETURNED);
}

static void run_grid(bool reverse) {
    unsigned long blocks = 1UL * gridDim.x * gridDim.y * gridDim.z;
    for (unsigned long turn = 0; turn < blocks; turn++) {
        unsigned long block = reverse ? blocks - 1 - turn : turn;
        blockIdx = block_position(block);
        watch_block(block);
        run_block(reverse);
    }
}

#ifdef __linux__
// All the thread-local variables of a library lie in one piece: the one that `known` lies in.
static int find_shared_memory(dl_phdr_info* library, size_t, void* known) {
    for (int i = 0; i < library->dlpi_phnum; i++) {
        char* start = static_cast<char*>(library->dlpi_tls_data);
        size_t bytes = library->dlpi_phdr[i].p_memsz;
        if (library->dlpi_phdr[i].p_type != PT_TLS || known < start || known >= start + bytes) continue;
        shared_memory = start;
        shared_bytes = bytes;
        return 1;
    }
    return 0;
}

static void find_shared_memory() {
    static thread_local char known;
    asm volatile("" :: "r"(&known) : "memory");
    dl_iterate_phdr(find_shared_memory, &known);
}
#else
static void find_shared_memory() {}         // it keeps what the block before has left there
#endif

// Runs the kernel that `body` calls with `values`, for parameters called `names`; returns what went wrong, or null.
// `sizes` are the grid's and the block's. All the arrays lie in `memory`.
const char* run(void (*body)(), const char* const* names, int max_threads, const unsigned* sizes,
                void** values, char* memory, size_t bytes, bool reverse) {
    if (!fibers) fibers = static_cast<Fiber*>(calloc(MAX_THREADS, sizeof(Fiber)));
    gridDim = {sizes[0], sizes[1], sizes[2]};
    blockDim = {sizes[3], sizes[4], sizes[5]};
    blockIdx = {0, 0, 0};
    kernel = body;
    arguments = values;
    find_shared_memory();

    const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE};
    struct sigaction ours = {}, theirs[3];
    ours.sa_sigaction = on_signal;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER;
    for (int i = 0; i < 3; i++) sigaction(numbers[i], &ours, &theirs[i]);
    bool failed = _setjmp(failure);
    current = nullptr;
    if (failed) {                           // these fibers never return from where they are
        for (int thread = 0; thread < MAX_THREADS; thread++) fibers[thread].begun = false;
    } else {
        int threads = blockDim.x * blockDim.y * blockDim.z;
        if (threads > max_threads) fail("%d threads, but __launch_bounds__(%d)", threads, max_threads);
        watch_launch(memory, bytes, names);
        run_grid(reverse);
    }
    forget_launch();
    for (int i = 0; i < 3; i++) sigaction(numbers[i], &theirs[i], nullptr);
    return failed ? message : nullptr;
}

// What a whole warp does at once, when all its threads have come to it.

static float value(unsigned bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

#if BF16
const int DEPTH_OF_MMA = 16;                // two numbers to 32 bits, at k = 2t and 2t + 1, 2t + 8 and 2t + 9
static int k_of(int t, int half, int n) { return 2 * t + 8 * half + n; }
static float number(unsigned bits, int n) { return value(n ? bits & 0xffff0000 : bits << 16); }
#else
const int DEPTH_OF_MMA = 8;                 // TF32: the hardware does not look at the last 13 bits
static int k_of(int t, int half, int) { return t + 4 * half; }
static float number(unsigned bits, int) { return value(bits & 0xffffe000); }
#endif

typedef float Row __attribute__((vector_size(32)));

static void multiply_matrices(Fiber* warp) {
    float a[16][DEPTH_OF_MMA];              // of which thread 4q + t holds rows q (+ 8)
    Row b[DEPTH_OF_MMA], product[16] = {};
    for (int lane = 0; lane < WARP; lane++)
        for (int n = 0; n < DEPTH_OF_MMA / 8; n++) {
            const unsigned* mine = static_cast<unsigned*>(warp[lane].operands[1]);
            for (int i = 0; i < 4; i++) a[lane / 4 + i % 2 * 8][k_of(lane % 4, i / 2, n)] = number(mine[i], n);
            mine = static_cast<unsigned*>(warp[lane].operands[2]);
            for (int i = 0; i < 2; i++) b[k_of(lane % 4, i, n)][lane / 4] = number(mine[i], n);
        }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < DEPTH_OF_MMA; k++) product[row] += a[row][k] * b[k];
    for (int lane = 0; lane < WARP; lane++) {
        float* mine = static_cast<float*>(warp[lane].operands[0]);
        for (int i = 0; i < 4; i++) mine[i] += product[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
    }
}

static void exchange(Fiber* warp) {
    char before[WARP][8];
    for (int lane = 0; lane < WARP; lane++) memcpy(before[lane], warp[lane].operands[0], warp->bytes);
    for (int lane = 0; lane < WARP; lane++) memcpy(warp[lane].operands[0], before[warp[lane].source], warp->bytes);
}

// Four matrices of eight rows of 16 bytes: lane 8 i + j says where row j of matrix i lies. Each lane gets 4 bytes of a row, or
// two numbers of 2 bytes of a column.
template <bool TRANSPOSED> void hand_out(Fiber* warp) {
    for (int lane = 0; lane < WARP; lane++)
        for (int i = 0; i < 4; i++) {
            unsigned short two[2];
            for (int n = 0; n < 2; n++) {
                int row = TRANSPOSED ? lane % 4 * 2 + n : lane / 4, column = TRANSPOSED ? lane / 4 : lane % 4 * 2 + n;
                memcpy(&two[n], static_cast<const unsigned short*>(warp[8 * i + row].operands[1]) + column, 2);
            }
            memcpy(static_cast<unsigned*>(warp[lane].operands[0]) + i, two, 4);
        }
}

// What a thread calls, of what cuda_on_host.h declares

int lane() { return (current - fibers) % WARP; }

void wait_for_block(int line) { wait_at(BARRIER, line); }

static void whole_warp(unsigned mask) {
    if (mask != WHOLE_WARP) fail("only the mask 0xffffffff is emulated, not %#x", mask);
}

void wait_for_warp(unsigned mask, int line) {
    whole_warp(mask);
    wait_at(WARP_BARRIER, line);
}

void shuffle(const char* place, unsigned mask, void* value, int bytes, int source, int line) {
    whole_warp(mask);
    current->operands[0] = value;
    current->bytes = bytes;
    current->source = source;
    wait_at(place, line, exchange);
}

void multiply(float* c, const unsigned* a, const unsigned* b, int line) {
    current->operands[0] = c;
    current->operands[1] = const_cast<unsigned*>(a);
    current->operands[2] = const_cast<unsigned*>(b);
    wait_at("mma()", line, multiply_matrices);
}

static bool in_shared_memory(const void* at) {
    return !shared_bytes || (at >= shared_memory && at < shared_memory + shared_bytes);     // if that is known
}

void load(unsigned* to, const void* row, bool transposed, int line) {
    if (reinterpret_cast<size_t>(row) % 16) fail("a row at %p in line %d: not a multiple of 16", row, line);
    if (!in_shared_memory(row)) fail("a row at %p in line %d, which is not in shared memory", row, line);
    use(row, 16, READS);
    current->operands[0] = to;
    current->operands[1] = const_cast<void*>(row);
    if (transposed) wait_at("load_transposed()", line, hand_out<true>);
    else wait_at("load_matrices()", line, hand_out<false>);
}

// The GPU reads and writes at any time from here until the thread waits for it. So both the beginning and the end count as
// accesses, and in between NaN lies there. Not seen: that the source is changed in between, with a barrier before and after.
void begin_copy(void* to, const void* from, bool there, int bytes, int line) {
    if (reinterpret_cast<size_t>(to) % bytes) fail("a copy to %p in line %d: not a multiple of %d", to, line, bytes);
    if (!in_shared_memory(to)) fail("a copy to %p in line %d, which is not in shared memory", to, line);
    if (there) {
        if (reinterpret_cast<size_t>(from) % bytes) fail("a copy from %p in line %d: not a multiple of %d", from, line, bytes);
        if (static_cast<size_t>(static_cast<const char*>(from) - arrays) >= array_bytes)
            fail("a copy from %p in line %d, which belongs to no array", from, line);
        use(from, bytes, READS);
    }
    if (current->begun_copies - current->done_copies == MAX_COPIES)
        fail("over %d copies under way in line %d", MAX_COPIES, line);
    if (!current->copies) current->copies = static_cast<Copy*>(malloc(MAX_COPIES * sizeof(Copy)));
    current->copies[current->begun_copies++ % MAX_COPIES] = {to, there ? from : nullptr, bytes, current->groups};
    use(to, bytes, WRITES);
    memset(to, 0xff, bytes);
}

void commit_copies() { current->groups++; }

// Those of all groups but the newest `but`
void finish_copies(unsigned but) {
    for (; current->done_copies != current->begun_copies; current->done_copies++) {
        const Copy& copy = current->copies[current->done_copies % MAX_COPIES];
        if (copy.group + but >= current->groups) return;
        use(copy.to, copy.bytes, WRITES);
        if (copy.from) {
            use(copy.from, copy.bytes, READS);
            memcpy(copy.to, copy.from, copy.bytes);
        } else {
            memset(copy.to, 0, copy.bytes);
        }
    }
}

template <class T> T add_atomically(T* at, T value) {
    add(at);
    T old = *at;
    *at += value;
    return old;
}

struct SourceLine { const char* file; unsigned line, column; };

}  // namespace on_host

// The compiler's own checks (-fsanitize=bounds,alignment) call these.
extern "C" void __ubsan_handle_out_of_bounds(on_host::SourceLine* at, unsigned long index) {
    on_host::fail("index %ld is outside of its array in line %u", index, at->line);
}
extern "C" void __ubsan_handle_type_mismatch_v1(on_host::SourceLine* at, unsigned long address) {
    on_host::fail("address %#lx is misaligned for its type in line %u", address, at->line);
}

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

int atomicAdd(int* at, int value) { return on_host::add_atomically(at, value); }
unsigned atomicAdd(unsigned* at, unsigned value) { return on_host::add_atomically(at, value); }
float atomicAdd(float* at, float value) { return on_host::add_atomically(at, value); }
