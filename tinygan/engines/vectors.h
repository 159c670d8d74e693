// What loops.c and toomcook.c share. Arrays are of floats, in C's order. Those of pixels have C channels, a multiple of 16
// but for gather.
#pragma once
#include <string.h>

// Floats in a vector; and of a block of a product that registers hold, the rows and the vectors of columns
#if defined __AVX512F__
enum { WIDTH = 16, TALL = 6, WIDE = 4 };
#elif defined __AVX__
enum { WIDTH = 8, TALL = 6, WIDE = 2 };
#else
enum { WIDTH = 4, TALL = 6, WIDE = 2 };
#endif
typedef float vector __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

static vector load(const float* from) { return *(const vector*)from; }
static void store(float* to, vector v) { *(vector*)to = v; }
static long least(long a, long b) { return a < b ? a : b; }
