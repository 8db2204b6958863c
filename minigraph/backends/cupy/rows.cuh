// Entries of a large array, picked by their numbers: a batch of a dataset that lies on the GPU.
#pragma once

struct alignas(16) sixteen {
  uint32_t words[4];
};

// An entry has `size` words, and n of them are copied: y[i] = x[order[i]].
template <class word>
INLINE void copy_rows(const word *x, const idx *order, word *y, idx n, idx size) {
  for (idx i = first_point(); i < n * size; i += all_threads()) y[i] = x[order[i / size] * size + i % size];
}

KERNEL rows_by_16(const sixteen *x, const idx *order, sixteen *y, idx n, idx size) { copy_rows(x, order, y, n, size); }
KERNEL rows_by_4(const uint32_t *x, const idx *order, uint32_t *y, idx n, idx size) { copy_rows(x, order, y, n, size); }
KERNEL rows_by_1(const uint8_t *x, const idx *order, uint8_t *y, idx n, idx size) { copy_rows(x, order, y, n, size); }
