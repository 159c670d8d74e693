// Finds races: two threads use one word of memory, at least one of them writes, and nothing orders the two. The
// orders in which cuda_on_host.h runs threads may both happen to give the right result; a GPU has many more.
//
// The kernels are compiled with -fsanitize=thread, which puts a call in front of each access to memory. Its library
// stays away: the calls are answered here. Each access is compared with the last write of the word, and a write with
// two of the reads since then. These order an access of one thread and a later one of another:
//
// - in a block, a __syncthreads() between them, or in a warp a __syncwarp(); shuffles and mma() order no memory;
// - of two blocks, that one has called atomicAdd after its access and the other before, on the same address, and that
//   each has a __threadfence() between access and atomicAdd. Where these are of different threads, there must be a
//   __syncthreads() too, and the fence in either thread, on its side of the barrier.
//
// Not seen: memory that is neither an argument nor shared; that threads use different bytes of a word, which is taken
// for a race; and addresses that a block has added to before the last one.

namespace on_host {

enum Use { READS, WRITES, ADDS };
const char *const DOES[] = {"reads", "writes", "adds to"}, *const HAS[] = {"read", "written", "added to"};

#if BF16
const int WORD = 2;                                     // bytes
#else
const int WORD = 4;
#endif

struct Access { unsigned thread, time; };               // which of the whole grid; time 0 if there was none

struct Word {
    Access write, reads[2];                             // since the write, the first and the last
    bool added;                                         // was that an atomicAdd?
};

struct Fences {
    unsigned last, before_barrier;                      // times of a thread's last, and of that before the barrier
    bool after_count;                                   // was one since the block's atomicAdd, to see others?
};

static char* arrays;                                    // all that the kernel's arguments point to
static size_t array_bytes, mapped_bytes;
static const char* const* parameters;                   // their names; empty for numbers
static Word* words;                                     // those of the arrays and behind them of shared memory
static const void** counters;                           // where each block has called atomicAdd,
static unsigned* published;                             // and before what time each thread's accesses are seen by then

// Time goes on where something is ordered, and from block to block.
static unsigned now, block_began, barrier, warp_barriers[MAX_THREADS / WARP], counted;
// Blocks and threads are numbered in the whole grid; `threads` is how many a block has.
static unsigned block, threads, first_thread, me, counting_thread;
static Fences fences[MAX_THREADS];

static void watch_launch(char* memory, size_t bytes, const char* const* names) {
    arrays = memory, array_bytes = (bytes + 3) / 4 * 4, parameters = names;
    threads = blockDim.x * blockDim.y * blockDim.z;
    size_t blocks = 1UL * gridDim.x * gridDim.y * gridDim.z, count = (array_bytes + shared_bytes) / WORD + 1;
    mapped_bytes = count * sizeof(Word) + blocks * (sizeof *counters + threads * sizeof *published);
    void* zeros = mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (zeros == MAP_FAILED) mapped_bytes = 0, fail("no memory to look for races");
    counters = static_cast<const void**>(zeros);
    words = reinterpret_cast<Word*>(counters + blocks);
    published = reinterpret_cast<unsigned*>(words + count);
    now = 0;
}

static void forget_launch() {
    if (mapped_bytes) munmap(counters, mapped_bytes);
    mapped_bytes = 0;
}

static void watch_block(unsigned number) {
    block = number, first_thread = block * threads, counted = 0;
    block_began = barrier = ++now;
    memset(fences, 0, sizeof fences);
    memset(warp_barriers, 0, sizeof warp_barriers);
}

static void watch_thread(int thread) { me = first_thread + thread; }

static void warp_has_met(int warp) { warp_barriers[warp] = ++now; }

static void block_has_met() {
    barrier = ++now;
    bool after_count = false;
    for (unsigned t = 0; t < threads; t++) after_count |= fences[t].after_count;
    for (unsigned t = 0; t < threads; t++) fences[t] = {fences[t].last, fences[t].last, after_count};
}

void fence() {
    Fences& mine = fences[me - first_thread];
    mine.last = ++now;
    mine.after_count |= counted && (me == counting_thread || counted < barrier);
}

static bool is_new(Access access) { return access.thread == me && access.time == now; }

static bool ordered(Access before, bool in_shared_memory) {
    if (!before.time || before.thread == me) return true;
    if (before.time < block_began)                      // in another block
        return in_shared_memory || (fences[me - first_thread].after_count && before.time < published[before.thread] &&
                                    counters[before.thread / threads] == counters[block]);
    unsigned warp = (me - first_thread) / WARP;
    return before.time < barrier ||
        ((before.thread - first_thread) / WARP == warp && before.time < warp_barriers[warp]);
}

static void fail_for_race(const char* at, Use use, Access before, const char* has) {
    const char* start = shared_memory, *name = "shared memory";
    if (at < shared_memory || at >= shared_memory + shared_bytes) {
        start = arrays;
        for (int i = 0; parameters[i]; i++) {           // the array that begins last
            char* array = *parameters[i] ? *static_cast<char**>(arguments[i]) : nullptr;
            if (start <= array && array <= at) start = array, name = parameters[i];
        }
    }
    uint3 b = block_position(before.thread / threads), t = position(before.thread % threads);
    fail("%s byte %zu of %s, which thread (%u, %u, %u) of block (%u, %u, %u) has %s, and nothing orders the two",
         DOES[use], at - start, name, t.x, t.y, t.z, b.x, b.y, b.z, has);
}

// A read takes the place of the first if that is ordered before it: so is it then before all that this is before.
static void use_word(Word& word, const char* at, Use use, bool in_shared_memory) {
    const Access mine = {me, now};
    if (!(word.added && use == ADDS) && !ordered(word.write, in_shared_memory))
        fail_for_race(at, use, word.write, HAS[word.added ? ADDS : WRITES]);
    if (use == READS) {
        word.reads[!ordered(word.reads[0], in_shared_memory)] = mine;
        return;
    }
    for (Access read : word.reads)
        if (!ordered(read, in_shared_memory)) fail_for_race(at, use, read, HAS[READS]);
    word = {mine, {}, use == ADDS};
}

static void use(const void* memory, size_t bytes, Use use) {
    if (!current) return;                               // the scheduler
    const char* at = static_cast<const char*>(memory);
    size_t offset = at - shared_memory;
    bool in_shared_memory = offset < shared_bytes;
    if (in_shared_memory) offset += array_bytes;
    else if ((offset = at - arrays) >= array_bytes) return;             // a thread's own, or constant
    for (Word* word = words + offset / WORD; word < words + (offset + bytes + WORD - 1) / WORD; word++, at += WORD)
        if (use != READS || !(is_new(word->reads[0]) || is_new(word->reads[1])))
            use_word(*word, at, use, in_shared_memory);
}

static void add(const void* at) {
    use(at, 4, ADDS);
    if (static_cast<size_t>(static_cast<const char*>(at) - arrays) >= array_bytes) return;
    bool for_all = fences[me - first_thread].last > barrier;            // a fence after a barrier
    counters[block] = at, counting_thread = me, counted = ++now;
    for (unsigned t = 0; t < threads; t++) {
        unsigned before = first_thread + t == me ? fences[t].last : for_all ? barrier : fences[t].before_barrier;
        if (published[first_thread + t] < before) published[first_thread + t] = before;
    }
}

}  // namespace on_host

#define ANSWER(prefix, bytes) \
    void __tsan_##prefix##read##bytes(void* at) { on_host::use(at, bytes, on_host::READS); } \
    void __tsan_##prefix##write##bytes(void* at) { on_host::use(at, bytes, on_host::WRITES); }
extern "C" {
ANSWER(, 1) ANSWER(, 2) ANSWER(, 4) ANSWER(, 8) ANSWER(, 16)
ANSWER(unaligned_, 2) ANSWER(unaligned_, 4) ANSWER(unaligned_, 8) ANSWER(unaligned_, 16)
void __tsan_read_range(void* at, unsigned long bytes) { on_host::use(at, bytes, on_host::READS); }
void __tsan_write_range(void* at, unsigned long bytes) { on_host::use(at, bytes, on_host::WRITES); }
void* __tsan_memcpy(void* to, const void* from, unsigned long bytes) {       // clang's, from version 15
    on_host::use(from, bytes, on_host::READS);
    on_host::use(to, bytes, on_host::WRITES);
    return memcpy(to, from, bytes);
}
void* __tsan_memset(void* to, int value, unsigned long bytes) {
    on_host::use(to, bytes, on_host::WRITES);
    return memset(to, value, bytes);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}
