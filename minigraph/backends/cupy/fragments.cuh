// The same products on tensor cores: of factors in half precision, bfloat16 or TF32, added up in float32.
//
// A warp multiplies 16 rows of a by 8 columns of b at once, of so many terms as 8 *words* of 32 bits hold: 16 of 16
// bits, two in a word, or 8 of TF32. Of these each lane holds a fragment (m16n8k16 and m16n8k8 in the manual of
// PTX); with g = lane / 4 and t = lane % 4, in words:
//
//     a: (row g, word t), (g + 8, t), (g, t + 4), (g + 8, t + 4)        b: (word t, column g), (t + 4, g)
//     sums: (row g, column 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1)
//
// In shared memory words run slowest, as terms do in tile.cuh. Lines of words lie 8 banks apart, of which a fragment has
// 4, each with 8 rows or columns side by side: its 32 lanes read 32 banks. Every 4 lines there are 8 banks more, so that
// threads that bring 4 words of a row each write to different banks as well.
//
// What the cores do with sums below a float's last place is theirs (they cut off where a sum of floats would round);
// the order is fixed. GPUs before compute capability 8.0 multiply the same words number by number.
#pragma once

// Add the products of a warp's fragments `a` and `b` to its `sums`.
#ifndef __CUDACC__
#define MULTIPLY_FRAGMENTS(shape, name, type) multiply_fragments<type>(sums, a, b)
#elif __CUDA_ARCH__ >= 800
#define MULTIPLY_FRAGMENTS(shape, name, type) \
  asm volatile("mma.sync.aligned." shape ".row.col.f32." name "." name ".f32 " \
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]) \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#else
#define MULTIPLY_FRAGMENTS(shape, name, type)
#endif

// How numbers of a type lie in words, and how a warp multiplies its fragments of them.
template <class X>
struct words;

template <>
struct words<tf32> {
  static constexpr int terms = 1;  // in a word

  static INLINE uint32_t of(const tf32 (&x)[1]) {
#if defined(__CUDACC__) && __CUDA_ARCH__ >= 800
    uint32_t word;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(x[0].number));
    return word;
#else
    return bits_of_float(x[0]);
#endif
  }

  static INLINE float product(uint32_t a, uint32_t b) { return float_of_bits(a) * float_of_bits(b); }

  static INLINE void multiply(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    MULTIPLY_FRAGMENTS("m16n8k8", "tf32", tf32);
  }
};

// Of 16 bits two are in a word, the first one in its lower half.
template <class X>
struct pairs {
  static constexpr int terms = 2;

  static INLINE uint32_t of(const X (&x)[2]) { return x[0].bits | (uint32_t)x[1].bits << 16; }

  static INLINE float product(uint32_t a, uint32_t b) {
    X x[2], y[2];
    x[0].bits = (uint16_t)a, x[1].bits = (uint16_t)(a >> 16), y[0].bits = (uint16_t)b, y[1].bits = (uint16_t)(b >> 16);
    return (float)x[0] * (float)y[0] + (float)x[1] * (float)y[1];
  }
};

template <>
struct words<half> : pairs<half> {
  static INLINE void multiply(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    MULTIPLY_FRAGMENTS("m16n8k16", "f16", half);
  }
};

template <>
struct words<bfloat16> : pairs<bfloat16> {
  static INLINE void multiply(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    MULTIPLY_FRAGMENTS("m16n8k16", "bf16", bfloat16);
  }
};

// The tile of a block: so many words of its terms at a time, and what of it is a warp's.
template <int ROWS, int COLUMNS, int DEPTH, int OWN_ROWS, int OWN_COLUMNS>
struct warps {
  static constexpr bool on_tensor_cores = true;
  static constexpr int rows = ROWS, columns = COLUMNS, depth = DEPTH, own_rows = OWN_ROWS, own_columns = OWN_COLUMNS;
  static constexpr int high = ROWS / OWN_ROWS, wide = COLUMNS / OWN_COLUMNS, threads = high * wide * 32;
};

// Where the words of so many lines, the rows of a or the columns of b, lie in shared memory.
template <int LINES>
INLINE constexpr int place_of_word(int word, int line) {
  return word * (LINES + 8) + word / 4 * 8 + line;
}

template <class X, int WIDTH>
struct alignas(WIDTH * sizeof(X)) run_of {
  X at[WIDTH];
};

// What a thread brings, as `bringing` does, in pieces of whole words: DEPTH words of each line at a time.
template <class View, bool OF_ROWS, int LINES, int DEPTH, int THREADS, class How>
struct bringing_words {
  typedef typename View::kind kind;
  static constexpr int width = How::width, pair = words<kind>::terms;
  static constexpr int terms = How::deep && width > pair ? width : pair, lines = How::deep ? 1 : width;  // of a piece
  static constexpr int reads = terms * lines / width, step = How::deep ? width : 1;  // terms from read to read
  typedef pieces<View, OF_ROWS, LINES, DEPTH * pair, THREADS, How::deep, lines, terms> own_pieces;
  static constexpr int each = own_pieces::each, size = DEPTH * (LINES + 8) + DEPTH / 4 * 8;
  own_pieces own;
  run_of<kind, width> held[each][reads];

  INLINE bringing_words(const View &view, int first, int count) : own(view, first, count) {}

  // Read the terms from `first` on, up to `end`. Those of one read are all before it, or none.
  INLINE void fetch(int first, int end) {
#pragma unroll
    for (int i = 0; i < each; i++)
#pragma unroll
      for (int j = 0; j < reads; j++) {
        const int k = first + own.term(i) + j * step;
        const spot term = own.spot_of_term(k);
        const kind *from = own.view.from + (own.at[i].offset + term.offset);
        held[i][j] = run_of<kind, width>{};
        if (own.there[i] && k < end && own.view.has(own.at[i], term))
          held[i][j] = *(const run_of<kind, width> *)from;
      }
  }

  INLINE uint32_t word(int i, int number) const {
    kind x[pair];
#pragma unroll
    for (int j = 0; j < pair; j++) {
      const int term = number * pair + j;
      x[j] = How::deep ? held[i][term / width].at[term % width] : held[i][j].at[number];
    }
    return words<kind>::of(x);
  }

  INLINE void put(uint32_t *to) const {
#pragma unroll
    for (int i = 0; i < each; i++) {
      if (!own.mine(i)) continue;
      const int first = own.term(i) / pair;
      if constexpr (How::deep) {
#pragma unroll
        for (int j = 0; j < terms / pair; j++) to[place_of_word<LINES>(first + j, own.line(i))] = word(i, j);
      } else {
        run_of<uint32_t, lines> found;
#pragma unroll
        for (int j = 0; j < lines; j++) found.at[j] = word(i, j);
        *(run_of<uint32_t, lines> *)(to + place_of_word<LINES>(first, own.line(i))) = found;
      }
    }
  }
};

// Add the products of `depth` words of a warp's rows and columns. a and b: where the first words of a lane lie.
template <class T, class X>
INLINE void multiply_words(const uint32_t *a, const uint32_t *b,
                           float (&sums)[T::own_rows / 16][T::own_columns / 8][4]) {
#if __CUDA_ARCH__ >= 800
#pragma unroll
  for (int k = 0; k < T::depth; k += 8) {
    uint32_t y[T::own_columns / 8][2];
#pragma unroll
    for (int j = 0; j < T::own_columns / 8; j++)
#pragma unroll
      for (int p = 0; p < 2; p++) y[j][p] = b[place_of_word<T::columns>(k + p * 4, j * 8)];
#pragma unroll
    for (int i = 0; i < T::own_rows / 16; i++) {
      uint32_t x[4];
#pragma unroll
      for (int p = 0; p < 4; p++) x[p] = a[place_of_word<T::rows>(k + p / 2 * 4, i * 16 + p % 2 * 8)];
#pragma unroll
      for (int j = 0; j < T::own_columns / 8; j++) words<X>::multiply(sums[i][j], x, y[j]);
    }
  }
#else
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;  // it reads all words, and of columns those of its sums
  a -= place_of_word<T::rows>(t, 0);
  b += 2 * t - g - place_of_word<T::columns>(t, 0);
  for (int k = 0; k < T::depth; k++)
#pragma unroll
    for (int i = 0; i < T::own_rows / 16; i++)
#pragma unroll
      for (int j = 0; j < T::own_columns / 8; j++)
#pragma unroll
        for (int p = 0; p < 4; p++)
          sums[i][j][p] += words<X>::product(a[place_of_word<T::rows>(k, i * 16 + p / 2 * 8)],
                                             b[place_of_word<T::columns>(k, j * 8 + p % 2)]);
#endif
}

// One tile, from `row` and `column` on, of a product with so many rows and columns: of the terms from `begin` to `end`.
template <class T, class ReadA, class ReadB, class A, class B, class Put>
  requires(T::on_tensor_cores)
INLINE void product(const A &a, const B &b, int rows, int columns, int row, int column, int begin, int end,
                    const Put &put) {
  typedef typename A::kind kind;
  typedef bringing_words<A, true, T::rows, T::depth, T::threads, ReadA> bringing_a;
  typedef bringing_words<B, false, T::columns, T::depth, T::threads, ReadB> bringing_b;
  constexpr int terms = T::depth * words<kind>::terms, pitch = T::columns + 8;
  constexpr int stage = T::high * 16 * pitch, halves = 2 * (bringing_a::size + bringing_b::size);
  __shared__ run_of<uint32_t, 4> memory[(stage > halves ? stage : halves) / 4];
  uint32_t *const as = memory[0].at, *const bs = as + 2 * bringing_a::size;
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const int own_row = warp / T::wide * T::own_rows, own_column = warp % T::wide * T::own_columns;
  float sums[T::own_rows / 16][T::own_columns / 8][4] = {};

  bringing_a of_a(a, row, rows);
  bringing_b of_b(b, column, columns);
  of_a.fetch(begin, end), of_b.fetch(begin, end);
  of_a.put(as), of_b.put(bs);
  __syncthreads();
  int now = 0;
  for (int k = begin; k < end; k += terms) {
    const bool more = k + terms < end;
    if (more) of_a.fetch(k + terms, end), of_b.fetch(k + terms, end);
    multiply_words<T, kind>(as + now * bringing_a::size + place_of_word<T::rows>(t, own_row + g),
                            bs + now * bringing_b::size + place_of_word<T::columns>(t, own_column + g), sums);
    now ^= 1;
    if (more) of_a.put(as + now * bringing_a::size), of_b.put(bs + now * bringing_b::size);
    __syncthreads();
  }

  // By way of the shared memory, 16 rows of each warp at a time, so that neighbouring threads put neighbouring numbers.
#pragma unroll
  for (int part = 0; part < T::own_rows / 16; part++) {
    if (part) __syncthreads();
#pragma unroll
    for (int j = 0; j < T::own_columns / 8; j++)
#pragma unroll
      for (int p = 0; p < 4; p += 2) {
        const float *sum = &sums[part][j][p];
        const int m = warp / T::wide * 16 + p / 2 * 8 + g, n = own_column + j * 8 + t * 2;
        *(run_of<uint32_t, 2> *)(as + m * pitch + n) =
            run_of<uint32_t, 2>{{bits_of_float(sum[0]), bits_of_float(sum[1])}};
      }
    __syncthreads();
    for (int i = threadIdx.x; i < T::high * 16 * T::columns; i += T::threads) {
      const int m = i / T::columns, n = i % T::columns;
      const int at_row = row + m / 16 * T::own_rows + part * 16 + m % 16, at_column = column + n;
      if (at_row < rows && at_column < columns) put(at_row, at_column, float_of_bits(as[m * pitch + n]));
    }
  }
}
