// Philox 4x32-10: number i is word i % 4 of the block whose counter is (i / 4, stream, step, step >> 32), under the key
// (seed, seed >> 32). A round multiplies two words into 64 bits each; the key moves on by a constant.
#ifndef RANDOM_SHAPE
#define RANDOM_SHAPE
typedef struct {
  idx stream;
} random_bits_shape;
#endif

INLINE Y0 NAME(random_bits)(idx i, const X0 *seed, const X1 *step, random_bits_shape s) {
  uint32_t a = (uint32_t)(i / 4), b = (uint32_t)s.stream;
  uint32_t c = (uint32_t)*step, d = (uint32_t)((uint64_t)*step >> 32);
  uint32_t k0 = (uint32_t)*seed, k1 = (uint32_t)((uint64_t)*seed >> 32);
  for (int round = 0; round < 10; round++) {
    const uint64_t p = (uint64_t)a * 0xD2511F53u, q = (uint64_t)c * 0xCD9E8D57u;
    a = (uint32_t)(q >> 32) ^ b ^ k0;
    b = (uint32_t)q;
    c = (uint32_t)(p >> 32) ^ d ^ k1;
    d = (uint32_t)p;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const uint32_t even = i & 2 ? c : a, odd = i & 2 ? d : b;
  return i & 1 ? odd : even;
}
