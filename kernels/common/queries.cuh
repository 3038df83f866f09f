// The queries of one warp, as the scores want them: fragments in registers, or the place to read them from each time.
#pragma once

#include "common/tile.cuh"

namespace evo {

/// Where fragments come from: shared memory for each tile of keys, shared memory once, global memory once.
enum class QuerySource { kShared, kRegisters, kGlobal };

/// `kRowTiles` tiles of 16 rows, all columns.
template <class Number, class Rows, int kRowTiles, QuerySource kSource>
struct QueryRows {
  static constexpr int kDim = 8 * Rows::kChunks;
  unsigned fragments[kRowTiles][kDim / 16][4];
  DirectRows<Rows> coming[kRowTiles];
  unsigned smem;  // of the first row; unused where they come from global memory

  __device__ __forceinline__ explicit QueryRows(unsigned rows_smem) : smem(rows_smem) {}

  /// kGlobal: starts the loads; rows from `valid_rows` on become zeros.
  template <class Element>
  __device__ __forceinline__ void fetch(const Element* rows_gmem, int valid_rows, int lane) {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) coming[i].fetch(rows_gmem + 16 * i * kDim, valid_rows - 16 * i, lane);
  }

  /// Makes the fragments, once the rows have come.
  __device__ __forceinline__ void arrange(int lane) {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
      if constexpr (kSource == QuerySource::kGlobal) coming[i].arrange(fragments[i], lane);
      if constexpr (kSource == QuerySource::kRegisters) load_rows<Rows>(fragments[i], smem + i * 16 * Rows::kStrideBytes, lane);
    }
  }

  /// Scores against one tile of keys.
  template <int kKeys>
  __device__ __forceinline__ void score(float (&scores)[kRowTiles][kKeys / 8][4], unsigned keys_smem, int lane) const {
    score_tile<Number, Rows, kKeys, kSource == QuerySource::kShared>(scores, fragments, smem, keys_smem, lane);
  }
};

}  // namespace evo
