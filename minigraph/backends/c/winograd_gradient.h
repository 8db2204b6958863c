// The gradient of a convolution of stride 1 to its weight, by Winograd's transforms; NHWC, in groups, float32.
//
//     dw_kc = G^T [ sum over tiles of (B^T x_c B) * (A dy_k A^T) ] G
//
// The transposed algorithm of winograd.h, with the same matrices: the convolution of p x p numbers of x with m x m of
// dy gives the r x r of dw. For each of the p^2 points the sum over tiles is a matrix product, channels x tiles times
// tiles x outputs. x is padded as in winograd.h, dy is not. Relative to the largest number of the result it errs by up
// to 2e-5 with six points in a row, and by up to 2e-6 with four.
//
// Two calls with a barrier between them. winograd_gradient sums over tiles: they are cut into `parts`, each with sums
// of its own. winograd_gradient_finish adds the parts in their order and transforms back. So the result depends on
// `parts` and `block`, and not on the number of threads. Parts cost memory, and a pass over it; where there are fewer
// of them than threads, threads share a part by outputs, and each transforms all of its x.
//
// Needs prelude.h, vector.h, tile.h and winograd.h.
#ifndef MINIGRAPH_WINOGRAD_GRADIENT_H
#define MINIGRAPH_WINOGRAD_GRADIENT_H

typedef struct {
  idx batch, rows, columns;  // of dy
  idx groups, channels, outputs;  // channels and outputs of each group
  idx x_image, x_row;        // floats from one image, and from one row, to the next; pixels are all channels
  idx y_image, y_row;
  idx tile, window;          // m and r: 4 and 3, 2 and 3, or 2 and 5
  idx vectors;               // vectors of outputs in a panel: 2, or 1
  idx block;                 // tiles that are transformed before they are summed, at least 1
  idx parts;                 // at least 1
  idx scratch;               // floats for each thread:
                             // points (block (up(channels, 16) + up(outputs, vectors LANES)) + 32), or more
} winograd_gradient_shape;

// Sums: [groups][parts][points][panels][up(channels, 16)][vectors * LANES], and a line of the cache behind each
// point, so that the same place of all points does not fall into a few sets of the cache.
INLINE idx winograd_gradient_plane(winograd_gradient_shape s) {
  return winograd_up(s.channels, WINOGRAD_LINE) * winograd_up(s.outputs, s.vectors * LANES) + WINOGRAD_LINE;
}

// Channels whose sums fill the registers: a power of two, so that it divides a group of 16 channels.
INLINE int winograd_gradient_height(int vectors) {
  int height = 1;
  UNROLL for (int more = 2; more <= 16; more *= 2) {
    if ((more + 1) * vectors + 1 <= REGISTERS) height = more;
  }
  return height;
}

// height x vectors registers: sum[c][k] += sum over tiles of v[t][c] d[t][k], or = where nothing was summed yet. v lies
// [tiles][16], 16 channels of them beside each other, d [tiles][vectors * LANES]. The tiles of a block are summed on
// their own and then added: long sums in one piece would lose digits.
INLINE void winograd_gradient_product(idx tiles, const float *v, const float *d, float *sum, bool first, int height,
                                      int vectors) {
  vec sums[16 * 2];
  UNROLL for (int i = 0; i < height * vectors; i++) sums[i] = (vec){0};
  for (idx t = 0; t < tiles; t++) {
    vec right[2];
    UNROLL for (int j = 0; j < vectors; j++) right[j] = vec_load(d + (t * vectors + j) * LANES);
    UNROLL for (int i = 0; i < height; i++) {
      const vec left = vec_splat(v[t * WINOGRAD_LINE + i]);
      UNROLL for (int j = 0; j < vectors; j++) sums[i * vectors + j] = vec_fma(left, right[j], sums[i * vectors + j]);
    }
  }
  if (!first) {
    UNROLL for (int i = 0; i < height * vectors; i++) sums[i] += vec_load(sum + i * LANES);
  }
  UNROLL for (int i = 0; i < height * vectors; i++) vec_store(sum + i * LANES, sums[i]);
}

// All channels by one panel of outputs, for one point. One function for each width, which all shapes share.
INLINE void winograd_gradient_products_of(int vectors, idx channels, idx tiles, const float *v, idx group,
                                          const float *d, float *sum, bool first) {
  const int height = winograd_gradient_height(vectors);
  for (idx c = 0; c < channels; c += height) {
    const float *const from = v + c / WINOGRAD_LINE * group + c % WINOGRAD_LINE;
    winograd_gradient_product(tiles, from, d, sum + c * vectors * LANES, first, height, vectors);
  }
}
NOINLINE void winograd_gradient_products_1(idx channels, idx tiles, const float *v, idx group, const float *d,
                                           float *sum, bool first) {
  winograd_gradient_products_of(1, channels, tiles, v, group, d, sum, first);
}
NOINLINE void winograd_gradient_products_2(idx channels, idx tiles, const float *v, idx group, const float *d,
                                           float *sum, bool first) {
  winograd_gradient_products_of(2, channels, tiles, v, group, d, sum, first);
}

// The tiles [first, first + tiles) and the panels [panel, panel_end), added to the sums of a part of a group, whose
// first channels x and dy point to.
INLINE void winograd_gradient_block(idx first, idx tiles, bool fresh, idx panel, idx panel_end, const float *x,
                                    const float *dy, float *sums, float *scratch, winograd_gradient_shape s) {
  const idx points = winograd_points(s.tile, s.window);
  const idx x_pixel = s.groups * s.channels, dy_pixel = s.groups * s.outputs;
  const idx width = s.vectors * LANES, padded = winograd_up(s.channels, WINOGRAD_LINE);
  const idx v_plane = s.block * padded + WINOGRAD_LINE, v_group = s.block * WINOGRAD_LINE;
  const idx d_plane = s.block * winograd_up(s.outputs, width) + WINOGRAD_LINE, d_panel = s.block * width;
  float *const v = scratch, *const d = scratch + points * v_plane;
  winograd_to *const x_to_points = winograd_input_to(s.tile, s.window);
  winograd_to *const dy_to_points = winograd_output_to(s.tile, s.window);
  for (idx t = 0; t < tiles; t++) {
    const winograd_place at = winograd_find(first + t, s.tile, s.rows, s.columns);
    const float *from = x + at.image * s.x_image + at.row * s.x_row + at.column * x_pixel;
    for (idx c = 0; c < padded; c += LANES) {
      x_to_points(from + c, s.x_row, x_pixel, at.rows + s.window - 1, at.columns + s.window - 1, s.channels - c,
                  v + c / WINOGRAD_LINE * v_group + t * WINOGRAD_LINE + c % WINOGRAD_LINE, v_plane);
    }
    from = dy + at.image * s.y_image + at.row * s.y_row + at.column * dy_pixel;
    for (idx k = panel * width; k < panel_end * width; k += LANES) {
      dy_to_points(from + k, s.y_row, dy_pixel, at.rows, at.columns, s.outputs - k,
                   d + k / width * d_panel + t * width + k % width, d_plane);
    }
  }
  for (idx e = 0; e < points; e++) {
    for (idx p = panel; p < panel_end; p++) {
      float *const at = sums + e * winograd_gradient_plane(s) + p * padded * width;
      (s.vectors == 1 ? winograd_gradient_products_1 : winograd_gradient_products_2)(
          s.channels, tiles, v + e * v_plane, v_group, d + e * d_plane + p * d_panel, at, fresh);
    }
  }
}

// The sums over tiles, of groups * parts * points * (up(channels, 16) * up(outputs, vectors * LANES) + 16) floats.
//
// The work is the list of all (group, part, panel), and each thread does a run of it.
INLINE void winograd_gradient(int thread, int threads, const float *x, const float *dy, float *sums, float *scratch,
                              winograd_gradient_shape s) {
  const idx panels = winograd_up(s.outputs, s.vectors * LANES) / (s.vectors * LANES);
  const idx points = winograd_points(s.tile, s.window);
  const idx tiles = s.batch * ((s.rows + s.tile - 1) / s.tile) * ((s.columns + s.tile - 1) / s.tile);
  const idx items = s.groups * s.parts * panels, end = share(items, thread + 1, threads);
  for (idx i = share(items, thread, threads), next; i < end; i = next) {
    const idx group = i / panels / s.parts, part = i / panels % s.parts, panel = i % panels;
    next = winograd_least(end, i - panel + panels);
    const idx first = tiles * part / s.parts, last = tiles * (part + 1) / s.parts;
    for (idx t = first; t == first || t < last; t += s.block) {  // once for no tiles: it writes zeros
      winograd_gradient_block(t, winograd_least(s.block, last - t), t == first, panel, panel + next - i,
                              x + group * s.channels, dy + group * s.outputs,
                              sums + i / panels * points * winograd_gradient_plane(s),
                              scratch + thread * s.scratch, s);
    }
  }
}

// dw, which is (groups, outputs, channels, window, window), from the sums.
INLINE void winograd_gradient_finish(int thread, int threads, const float *sums, float *dw, winograd_gradient_shape s,
                                     finish_t finish, const void *with) {
  const idx points = winograd_points(s.tile, s.window), taps = s.window * s.window;
  const idx width = s.vectors * LANES, padded = winograd_up(s.channels, WINOGRAD_LINE);
  const idx plane = winograd_gradient_plane(s);
  winograd_from *const from_points = winograd_weight_from(s.tile, s.window);
  const idx each = (s.outputs + LANES - 1) / LANES, items = s.groups * each * s.channels;
  const idx end = share(items, thread + 1, threads);
  for (idx i = share(items, thread, threads), next; i < end; i = next) {
    const idx group = i / s.channels / each, k = i / s.channels % each * LANES, c_begin = i % s.channels;
    const idx lanes = winograd_least(LANES, s.outputs - k), row = group * s.outputs + k;  // of dw
    next = winograd_least(end, i - c_begin + s.channels);
    const idx c_end = c_begin + next - i;
    for (idx c = c_begin; c < c_end; c++) {
      const idx place = (k / width * padded + c) * width + k % width;
      const float *from = sums + group * s.parts * points * plane + place;
      float total[WINOGRAD_MOST * WINOGRAD_MOST * LANES], window[25 * LANES];
      for (idx e = 0; e < points; e++) {
        vec sum = vec_load(from + e * plane);
        for (idx part = 1; part < s.parts; part++) sum += vec_load(from + (part * points + e) * plane);
        vec_store(total + e * LANES, sum);
      }
      from_points(total, LANES, window, s.window * LANES, LANES, s.window, s.window, LANES);
      for (idx lane = 0; lane < lanes; lane++) {
        for (idx j = 0; j < taps; j++) dw[((row + lane) * s.channels + c) * taps + j] = window[j * LANES + lane];
      }
    }
    if (!finish) continue;
    finish((row * s.channels + c_begin) * taps, lanes, s.channels * taps, (c_end - c_begin) * taps, with);
  }
}

#endif
