// The products of warps on tensor cores, by what the manual of PTX says of mma.m16n8k16 for half precision, and of
// mma.m16n8k8 for TF32: which rows and columns of the factors and of the sum each lane's registers hold. Lanes put what
// they hold into matrices, and when all have, each adds up its own four sums. A word of TF32 has no bits behind the tenth.
#pragma once

struct matrices {
  float a[16][16], b[16][8];
};
static matrices of_warp[32];

// Elements come lowest bits of a register first.
template <class X>
struct elements {
  static constexpr int terms = 16;
  static float of(const uint32_t *registers, int i) {
    X x;
    x.bits = (uint16_t)(registers[i / 2] >> i % 2 * 16);
    return (float)x;
  }
  static int a_row(int group, int i) { return i < 2 || (4 <= i && i < 6) ? group : group + 8; }
  static int a_column(int in_group, int i) { return in_group * 2 + (i & 1) + (i < 4 ? 0 : 8); }
  static int b_row(int in_group, int i) { return in_group * 2 + (i & 1) + (i < 2 ? 0 : 8); }
};

struct tf32;
template <>
struct elements<tf32> {
  static constexpr int terms = 8;
  static float of(const uint32_t *registers, int i) {
    float x;
    memcpy(&x, &registers[i], 4);
    if (x == x && (registers[i] & 0x1fff)) fprintf(stderr, "a factor was not rounded to TF32\n"), abort();
    return x;
  }
  static int a_row(int group, int i) { return i == 0 || i == 2 ? group : group + 8; }
  static int a_column(int in_group, int i) { return i < 2 ? in_group : in_group + 4; }
  static int b_row(int in_group, int i) { return i == 0 ? in_group : in_group + 4; }
};

template <class X>
static void multiply_fragments(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  typedef elements<X> held;
  const int group = threadIdx.x % 32 >> 2, in_group = threadIdx.x % 4;
  matrices &all = of_warp[threadIdx.x / 32];
  for (int i = 0; i < held::terms / 2; i++) all.a[held::a_row(group, i)][held::a_column(in_group, i)] = held::of(a, i);
  for (int i = 0; i < held::terms / 4; i++) all.b[held::b_row(in_group, i)][group] = held::of(b, i);
  __syncwarp();
  for (int i = 0; i < 4; i++) {
    const int row = i < 2 ? group : group + 8, column = in_group * 2 + (i & 1);
    for (int k = 0; k < held::terms; k++) sums[i] += all.a[row][k] * all.b[k][column];
  }
  __syncwarp();
}
