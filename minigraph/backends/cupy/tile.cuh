// Products of matrices by tiles: what matrix products and convolutions are made of.
//
//     y[m][n] = sum over k of a[m][k] * b[k][n]
//
// A block makes one tile of y, of which each thread holds some rows and columns in registers. The block goes over the
// terms k some at a time: while it multiplies what lies in one half of the shared memory, the numbers for the other half
// are on their way. There the terms run slowest, so that four neighbours of a row or of a column are read at once.
//
// a and b are *views*: they say where the numbers of a row and of a column lie, and whether a number is there; one that
// is not is zero. So images are matrices whose rows are the places of a window, and nothing is copied.
//
// Numbers may lie in half precision: they are multiplied and added up in float32.
//
// What becomes of y is up to `put(row, column, number)`, which is called once for each number, by neighbours at once.
#pragma once

// A float32 number that is rounded to TF32 where it is read.
struct tf32 {
  float number;
  INLINE operator float() const { return tf32_float(number); }
};

// Four numbers that are read at once.
template <class X>
struct alignas(4 * sizeof(X)) four_of {
  X at[4];
};
typedef four_of<float> four;

// A row or a column: how far from the first number of the matrix it begins, and where along the axes of an image.
struct spot {
  int offset, at[3];
};

// A matrix whose rows, and columns, lie so far apart.
template <class X>
struct matrix {
  typedef X kind;
  const X *from;
  int row_step, column_step;
  INLINE spot row(int i) const { return spot{i * row_step, {0, 0, 0}}; }
  INLINE spot column(int i) const { return spot{i * column_step, {0, 0, 0}}; }
  INLINE bool has(spot, spot) const { return true; }
};

// The tile of a block, and what of it is a thread's. Both own_ are multiples of 4. The threads of a warp are 8 side by
// side, or as many as there are, so that they read as little as may be.
template <int ROWS, int COLUMNS, int DEPTH, int OWN_ROWS, int OWN_COLUMNS>
struct tile {
  static constexpr int rows = ROWS, columns = COLUMNS, depth = DEPTH, own_rows = OWN_ROWS, own_columns = OWN_COLUMNS;
  static constexpr int high = ROWS / OWN_ROWS * 4, wide = COLUMNS / OWN_COLUMNS * 4;  // what all have of 4 by 4 each
  static constexpr int threads = high * wide / 16, warp_wide = wide / 4 < 8 ? wide / 4 : 8, warp_high = 32 / warp_wide;
};

// How the numbers of a view are read: so many at a time, which lie side by side. deep: they are terms of one line.
template <bool DEEP, int WIDTH>
struct reading {
  static constexpr bool deep = DEEP;
  static constexpr int width = WIDTH;
};

// Which pieces a thread brings of so many lines, the rows of a or the columns of b, DEPTH terms of each at a time.
//
// A piece has `terms` terms of `lines` lines. Neighbouring threads have pieces of the same lines if DEEP, else of the
// same terms.
template <class View, bool OF_ROWS, int LINES, int DEPTH, int THREADS, bool DEEP, int OWN_LINES, int OWN_TERMS>
struct pieces {
  static constexpr int lines = OWN_LINES, terms = OWN_TERMS, along = DEEP ? DEPTH / terms : LINES / lines;
  static constexpr int all = LINES * DEPTH / (lines * terms), each = (all + THREADS - 1) / THREADS;
  const View view;
  spot at[each];
  bool there[each];

  static INLINE int piece(int i) { return threadIdx.x + i * THREADS; }
  static INLINE bool mine(int i) { return all % THREADS == 0 || piece(i) < all; }
  static INLINE int line(int i) { return (DEEP ? piece(i) / along : piece(i) % along) * lines; }
  static INLINE int term(int i) { return (DEEP ? piece(i) % along : piece(i) / along) * terms; }

  INLINE pieces(const View &v, int first, int count) : view(v) {
#pragma unroll
    for (int i = 0; i < each; i++) {
      const int own = first + line(i);
      at[i] = OF_ROWS ? view.row(own) : view.column(own);
      there[i] = mine(i) && own < count;
    }
  }

  INLINE spot spot_of_term(int k) const { return OF_ROWS ? view.column(k) : view.row(k); }
};

// What a thread brings: numbers, as many in a piece as are read at a time.
template <class View, bool OF_ROWS, int LINES, int DEPTH, int THREADS, class How>
struct bringing {
  static constexpr int width = How::width, lines = How::deep ? 1 : width, terms = How::deep ? width : 1;
  typedef pieces<View, OF_ROWS, LINES, DEPTH, THREADS, How::deep, lines, terms> own_pieces;
  static constexpr int each = own_pieces::each, pitch = LINES + 4, size = DEPTH * pitch;
  own_pieces own;
  float held[each][width];

  INLINE bringing(const View &view, int first, int count) : own(view, first, count) {}

  // Read the terms from `first` on, up to `end`. Those of one read are all before it, or none.
  INLINE void fetch(int first, int end) {
#pragma unroll
    for (int i = 0; i < each; i++) {
      const int k = first + own.term(i);
      const spot term = own.spot_of_term(k);
      const auto *from = own.view.from + (own.at[i].offset + term.offset);
      const bool inside = own.there[i] && k < end && own.view.has(own.at[i], term);
      if constexpr (width == 4) {
        four read = {{0, 0, 0, 0}};
        if (inside) {
          const auto found = *(const four_of<typename View::kind> *)from;
#pragma unroll
          for (int j = 0; j < 4; j++) read.at[j] = (float)found.at[j];
        }
#pragma unroll
        for (int j = 0; j < 4; j++) held[i][j] = read.at[j];
      } else {
        held[i][0] = inside ? (float)*from : 0;
      }
    }
  }

  // Put them into shared memory: term k of a line at k * pitch + line.
  INLINE void put(float *to) const {
#pragma unroll
    for (int i = 0; i < each; i++) {
      if (!own.mine(i)) continue;
      float *at = to + own.term(i) * pitch + own.line(i);
      if constexpr (width == 4 && !How::deep) {
        *(four *)at = four{{held[i][0], held[i][1], held[i][2], held[i][3]}};
      } else {
#pragma unroll
        for (int j = 0; j < width; j++) at[j * pitch] = held[i][j];
      }
    }
  }
};

// Add the products of `depth` terms of a thread's rows and columns: the one place where numbers are multiplied.
template <class T>
INLINE void multiply(const float *a, const float *b, float (&sums)[T::own_rows][T::own_columns]) {
#pragma unroll
  for (int k = 0; k < T::depth; k++) {
    float x[T::own_rows], y[T::own_columns];
#pragma unroll
    for (int i = 0; i < T::own_rows; i += 4) {
      const four read = *(const four *)(a + k * (T::rows + 4) + i / 4 * T::high);
#pragma unroll
      for (int j = 0; j < 4; j++) x[i + j] = read.at[j];
    }
#pragma unroll
    for (int i = 0; i < T::own_columns; i += 4) {
      const four read = *(const four *)(b + k * (T::columns + 4) + i / 4 * T::wide);
#pragma unroll
      for (int j = 0; j < 4; j++) y[i + j] = read.at[j];
    }
#pragma unroll
    for (int i = 0; i < T::own_rows; i++)
#pragma unroll
      for (int j = 0; j < T::own_columns; j++) sums[i][j] += x[i] * y[j];
  }
}

// One tile, from `row` and `column` on, of a product with so many rows and columns: of the terms from `begin` to `end`.
template <class T, class ReadA, class ReadB, class A, class B, class Put>
INLINE void product(const A &a, const B &b, int rows, int columns, int row, int column, int begin, int end,
                    const Put &put) {
  typedef bringing<A, true, T::rows, T::depth, T::threads, ReadA> bringing_a;
  typedef bringing<B, false, T::columns, T::depth, T::threads, ReadB> bringing_b;
  constexpr int stage = T::high * (T::columns + 4), halves = 2 * (bringing_a::size + bringing_b::size);
  __shared__ four memory[(stage > halves ? stage : halves) / 4];
  float *const as = (float *)memory, *const bs = as + 2 * bringing_a::size;
  constexpr int warps_wide = T::wide / 4 / T::warp_wide;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int own_row = (warp / warps_wide * T::warp_high + lane / T::warp_wide) * 4;
  const int own_column = (warp % warps_wide * T::warp_wide + lane % T::warp_wide) * 4;
  float sums[T::own_rows][T::own_columns] = {};

  bringing_a of_a(a, row, rows);
  bringing_b of_b(b, column, columns);
  of_a.fetch(begin, end), of_b.fetch(begin, end);
  of_a.put(as), of_b.put(bs);
  __syncthreads();
  int half = 0;
  for (int k = begin; k < end; k += T::depth) {
    const bool more = k + T::depth < end;
    if (more) of_a.fetch(k + T::depth, end), of_b.fetch(k + T::depth, end);
    multiply<T>(as + half * bringing_a::size + own_row, bs + half * bringing_b::size + own_column, sums);
    half ^= 1;
    if (more) of_a.put(as + half * bringing_a::size), of_b.put(bs + half * bringing_b::size);
    __syncthreads();
  }

  // By way of the shared memory, so that neighbouring threads put neighbouring numbers.
#pragma unroll
  for (int part = 0; part < T::own_rows / 4; part++) {
    if (part) __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < T::own_columns; j += 4) {
        const float *sum = &sums[part * 4 + i][j];
        *(four *)(as + (own_row + i) * (T::columns + 4) + j / 4 * T::wide + own_column) =
            four{{sum[0], sum[1], sum[2], sum[3]}};
      }
    __syncthreads();
    for (int i = threadIdx.x; i < T::high * T::columns; i += T::threads) {
      const int m = i / T::columns, n = i % T::columns, at_row = row + part * T::high + m, at_column = column + n;
      if (at_row < rows && at_column < columns) put(at_row, at_column, as[m * (T::columns + 4) + n]);
    }
  }
}

// Which tile of which product a block makes: neighbours the tiles of the same rows, then of the same product. The terms
// of a product may be divided into chunks, each of so many, that are added up afterwards.
struct work {
  int row, column, number, chunk, begin, end;
};

template <class T>
INLINE work own_work(int rows, int columns, int products, int per_chunk, int terms) {
  const int across = (columns + T::columns - 1) / T::columns, down = (rows + T::rows - 1) / T::rows;
  int rest = blockIdx.x;
  const int column = rest % across;
  rest /= across;
  const int row = rest % down;
  rest /= down;
  const int chunk = rest / products, begin = chunk * per_chunk;
  return work{row * T::rows, column * T::columns, rest % products, chunk, begin,
              terms - begin < per_chunk ? terms : begin + per_chunk};
}

// For the chunks of a product: numbers go to a matrix with the rows of the first chunk, then those of the second, ...
struct chunks {
  float *to;
  int columns;
  INLINE void operator()(idx row, idx column, float number) const { to[row * columns + column] = number; }
};

// The sums over the chunks, in their order. Each column is one of `apart` numbers that lie side by side in the result,
// those of the first number first.
template <class Put>
INLINE void add_chunks(const float *from, int count, int rows, int columns, int apart, const Put &put) {
  const int points = rows * columns, inner = columns / apart;
  for (int point = (int)first_point(); point < points; point += (int)all_threads()) {
    float sum = 0;
#pragma unroll 16
    for (int i = 0; i < count; i++) sum += from[(idx)i * points + point];
    const int column = point % columns;
    put(point / columns, column % inner * apart + column / inner, sum);
  }
}
