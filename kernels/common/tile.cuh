// Moving tiles: global rows to shared memory, shared rows to mma fragments, fragments to global rows.
#pragma once

#include "common/ptx.cuh"
#include "common/swizzle.cuh"

namespace evo {

/// Starts the copy of `kRows` rows from global to shared memory by `kThreads` threads; rows from `valid_rows` on become zeros.
/// A thread keeps its chunk and steps down the rows: all its addresses are a few bases plus constants.
template <class Rows, int kRows, int kThreads, class Element>
__device__ __forceinline__ void copy_rows_async(unsigned to_smem, const Element* from_gmem, int valid_rows, int thread) {
  constexpr int kRowsPerStep = kThreads / Rows::kChunks;
  constexpr int kBases = kRowsPerStep < 8 ? 8 / kRowsPerStep : 1;  // the swizzle repeats every eight rows
  static_assert(kThreads % Rows::kChunks == 0 && kBases * kRowsPerStep % 8 == 0, "steps of whole rows, eight in a cycle");
  const int row = thread / Rows::kChunks, chunk = thread % Rows::kChunks;
  const Element* from = from_gmem + thread * 8;
  asm("" : "+l"(from));  // the compiler would otherwise add the tile's start to every step's offset anew
#pragma unroll
  for (int step = 0; step * kRowsPerStep < kRows; ++step) {
    if (kRows % kRowsPerStep != 0 && row + step * kRowsPerStep >= kRows) break;
    const int base = Rows::offset(row + step % kBases * kRowsPerStep, chunk);
    cp_async_16(to_smem + base + step / kBases * kBases * kRowsPerStep * Rows::kStrideBytes, from + step * kThreads * 8,
                row < valid_rows - step * kRowsPerStep);
  }
}

/// Where one lane reads for ldmatrix.x4 (16 rows by 2 chunks at a time).
template <class Rows>
struct LaneRows {
  /// Row-major a fragments (queries) and, transposed, b fragments of a [k][n] tile (values).
  static __device__ __forceinline__ unsigned offset_a(int lane, int chunk) {
    return Rows::offset((lane & 7) + (lane & 8), chunk + (lane >> 4));
  }
  /// b fragments of an [n][k] tile (keys).
  static __device__ __forceinline__ unsigned offset_b(int lane, int chunk) {
    return Rows::offset((lane & 7) + ((lane >> 4) << 3), chunk + ((lane >> 3) & 1));
  }
};

/// Hands word i of lane t to lane i of the quad, as its word t.
__device__ __forceinline__ void transpose_quad(unsigned (&words)[4], int lane) {
#pragma unroll
  for (int step = 1; step <= 2; step *= 2) {
    const bool upper = lane & step;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & step) continue;
      const unsigned got = __shfl_xor_sync(0xffffffffu, upper ? words[i] : words[i + step], step);
      (upper ? words[i] : words[i + step]) = got;
    }
  }
}

/// Loads the a fragments of 16 rows, all columns.
template <class Rows>
__device__ __forceinline__ void load_rows(unsigned (&fragments)[Rows::kChunks / 2][4], unsigned rows_smem, int lane) {
#pragma unroll
  for (int k = 0; k < Rows::kChunks / 2; ++k) {
    ldmatrix_x4(fragments[k], rows_smem + LaneRows<Rows>::offset_a(lane, 2 * k));
  }
}

/// The same 16 rows on their way from global memory straight to a fragments, without shared memory: each lane reads 16
/// bytes at a time, and the quads exchange them when they have come.
template <class Rows>
struct DirectRows {
  uint4 chunks[2][Rows::kChunks / 4];  // lane 4g+t has chunks t, 4+t, ... of row g and of row g + 8

  /// Starts the loads; rows from `valid_rows` on become zeros. `from_gmem` is the first of the rows.
  template <class Element>
  __device__ __forceinline__ void fetch(const Element* from_gmem, int valid_rows, int lane) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = lane / 4 + 8 * half;
      const uint4* from = reinterpret_cast<const uint4*>(from_gmem + row * Rows::kChunks * 8) + lane % 4;
#pragma unroll
      for (int n = 0; n < Rows::kChunks / 4; ++n) chunks[half][n] = row < valid_rows ? __ldg(from + 4 * n) : uint4{};
    }
  }

  __device__ __forceinline__ void arrange(unsigned (&fragments)[Rows::kChunks / 2][4], int lane) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int n = 0; n < Rows::kChunks / 4; ++n) {
        const uint4 chunk = chunks[half][n];
        unsigned words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
        transpose_quad(words, lane);
#pragma unroll
        for (int i = 0; i < 4; ++i) fragments[2 * n + i / 2][i % 2 * 2 + half] = words[i];
      }
    }
  }
};

/// scores += queries keys^T for one column step `k` of 16: `kKeys` keys, `kRowTiles` tiles of 16 rows.
template <class Number, class Rows, int kKeys, int kRowTiles>
__device__ __forceinline__ void add_scores(float (&scores)[kRowTiles][kKeys / 8][4], const unsigned (&queries)[kRowTiles][4],
                                           unsigned keys_smem, int k, int lane) {
#pragma unroll
  for (int n = 0; n < kKeys / 16; ++n) {
    unsigned keys[4];
    ldmatrix_x4(keys, keys_smem + LaneRows<Rows>::offset_b(lane, 2 * k) + n * 16 * Rows::kStrideBytes);
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
      Number::mma(scores[tile][2 * n], queries[tile], keys[0], keys[1]);
      Number::mma(scores[tile][2 * n + 1], queries[tile], keys[2], keys[3]);
    }
  }
}

/// scores = queries keys^T, all columns. The queries' fragments, or (kFromShared) where in shared memory the rows lie.
template <class Number, class Rows, int kKeys, bool kFromShared, int kRowTiles>
__device__ __forceinline__ void score_tile(float (&scores)[kRowTiles][kKeys / 8][4], const unsigned (&queries)[kRowTiles][Rows::kChunks / 2][4],
                                           unsigned queries_smem, unsigned keys_smem, int lane) {
#pragma unroll
  for (int i = 0; i < kRowTiles * kKeys / 2; ++i) (&scores[0][0][0])[i] = 0.0f;
#pragma unroll
  for (int k = 0; k < Rows::kChunks / 2; ++k) {
    unsigned step[kRowTiles][4];
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
      if constexpr (kFromShared) {
        ldmatrix_x4(step[i], queries_smem + i * 16 * Rows::kStrideBytes + LaneRows<Rows>::offset_a(lane, 2 * k));
      } else {
#pragma unroll
        for (int word = 0; word < 4; ++word) step[i][word] = queries[i][k][word];
      }
    }
    add_scores<Number, Rows, kKeys, kRowTiles>(scores, step, keys_smem, k, lane);
  }
}

/// output += weights values for `kKeys` keys; the weights' accumulator layout is just the layout of a fragments.
template <class Number, class Rows, int kKeys, int kRowTiles>
__device__ __forceinline__ void add_values(float (&output)[kRowTiles][Rows::kChunks][4],
                                           const float (&weights)[kRowTiles][kKeys / 8][4], unsigned values_smem, int lane) {
#pragma unroll
  for (int k = 0; k < kKeys / 16; ++k) {
    unsigned packed[kRowTiles][4];
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = &weights[tile][2 * k + i / 2][2 * (i % 2)];
        packed[tile][i] = Number::pack(pair[0], pair[1]);
      }
    }
#pragma unroll
    for (int n = 0; n < Rows::kChunks / 2; ++n) {
      unsigned values[4];
      ldmatrix_x4_trans(values, values_smem + LaneRows<Rows>::offset_a(lane, 2 * n) + k * 16 * Rows::kStrideBytes);
#pragma unroll
      for (int tile = 0; tile < kRowTiles; ++tile) {
        Number::mma(output[tile][2 * n], packed[tile], values[0], values[1]);
        Number::mma(output[tile][2 * n + 1], packed[tile], values[2], values[3]);
      }
    }
  }
}

/// Stores one row of a 16-row accumulator tile, 4 bytes a lane or, `kWide`, 16 after a transposition in the quad.
/// All lanes of the warp call; those with `visible` store. `half` 0: row g, 1: row g + 8.
template <class Number, int kDim, bool kWide>
__device__ __forceinline__ void store_row(typename Number::Element* row_gmem, const float (&tile)[kDim / 8][4], int half,
                                          float factor, bool visible, int lane) {
  const int t = lane % 4;
#pragma unroll
  for (int n = 0; n < kDim / 8; n += 4) {
    unsigned words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      words[i] = Number::pack(tile[n + i][2 * half] * factor, tile[n + i][2 * half + 1] * factor);
    }
    if constexpr (kWide) {
      transpose_quad(words, lane);
      if (visible) global_store(row_gmem + (n + t) * 8, make_uint4(words[0], words[1], words[2], words[3]));
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (visible) *reinterpret_cast<unsigned*>(row_gmem + (n + i) * 8 + 2 * t) = words[i];
      }
    }
  }
}

}  // namespace evo
