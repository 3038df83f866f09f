// One warp's query rows against the keys: scores, weights, maxima, sums and output never leave its registers.
#pragma once

#include "common/ptx.cuh"
#include "common/softmax.cuh"
#include "common/swizzle.cuh"
#include "common/task.cuh"
#include "common/tile.cuh"

namespace evo {

/// A warp that owns `kRowTiles` tiles of 16 query rows and meets `kTileK` keys at a time.
///
///   scores   mma accumulators: lane 4g+t has, of rows g and g + 8, keys 2t, 2t + 1 of every 8
///   weights  the same registers rounded to 16 bits: this is just the layout that mma wants of its left factor
///   output   accumulators again, rows g and g + 8: rescaling a row is a multiplication in place
template <class Numbers, class Rows, class Exp, int kRowTiles, int kTileK, bool kCausal, bool kQueriesInRegisters>
struct RowWarp {
  static constexpr int kDim = 8 * Rows::kChunks;
  static constexpr int kTileBytes = 16 * Rows::kStrideBytes;  // of one row tile

  int first_row, lane;
  unsigned queries_smem;
  unsigned queries[kRowTiles][kDim / 16][4];
  Partial<kRowTiles, kDim> partial;

  /// The warp of this thread; the block's queries lie at `block_queries_smem`.
  __device__ __forceinline__ explicit RowWarp(unsigned block_queries_smem)
      : first_row(threadIdx.x / 32 * kRowTiles * 16), lane(threadIdx.x % 32),
        queries_smem(block_queries_smem + first_row * Rows::kStrideBytes) {}

  /// One step of algorithm 1 of FlashAttention-2: the keys from `first_key` on; queries and tile must lie in shared memory.
  template <class Element>
  __device__ __forceinline__ void attend(const Task<Element>& task, int first_key, unsigned keys_smem, unsigned values_smem, float factor) {
    if (kQueriesInRegisters && first_key == 0) {
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) load_rows<Rows>(queries[i], queries_smem + i * kTileBytes, lane);
    }
    if (first_key >= task.template visible_keys<kCausal>(first_row + kRowTiles * 16 - 1)) return;  // the last row sees the most
    float scores[kRowTiles][kTileK / 8][4];
    score_tile<Numbers, Rows, kTileK, !kQueriesInRegisters>(scores, queries, queries_smem, keys_smem, lane);
    hide_unseen<kCausal>(scores, task, first_row, first_key, lane);
    partial.template soften<Exp, false>(scores, factor);
    add_values<Numbers, Rows, kTileK, kRowTiles>(partial.output, scores, values_smem, lane);
  }

  /// Divides by the sums and stores the rows that exist; nothing may be attended to afterwards.
  template <class Element>
  __device__ __forceinline__ void store(const Task<Element>& task) {
    partial.finish();
#pragma unroll
    for (int i = 0; i < 2 * kRowTiles; ++i) {
      const int row = first_row + i * 8 + lane / 4;
      store_row<Numbers, kDim, false>(task.out + static_cast<size_t>(row) * kDim, partial.output[i / 2], i % 2,
                                      1.0f / partial.sum[i / 2][i % 2], row < task.queries, lane);
    }
  }
};

}  // namespace evo
