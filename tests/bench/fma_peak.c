/* Fused multiply-adds per second of one core: as many independent chains as registers hold, no memory. */

#if defined(__AVX512F__)
enum { BYTES = 64, CHAINS = 24 };
#elif defined(__AVX__)
enum { BYTES = 32, CHAINS = 12 };
#else
enum { BYTES = 16, CHAINS = 12 };
#endif

typedef float vector __attribute__((vector_size(BYTES)));

/* Returns the number of floating-point operations; `out` keeps the compiler from dropping them. */
double fma_rounds(long rounds, float *out)
{
    vector sum[CHAINS], factor, term;
    for (int lane = 0; lane < BYTES / 4; lane++) {
        factor[lane] = 0.999f;
        term[lane] = 0.001f;
        for (int chain = 0; chain < CHAINS; chain++)
            sum[chain][lane] = (float)(chain + lane);
    }
    for (long round = 0; round < rounds; round++)
#pragma GCC unroll 24
        for (int chain = 0; chain < CHAINS; chain++)
            sum[chain] = sum[chain] * factor + term;
    for (int chain = 0; chain < CHAINS; chain++)
        for (int lane = 0; lane < BYTES / 4; lane++)
            *out += sum[chain][lane];
    return 2.0 * rounds * CHAINS * (BYTES / 4);
}
