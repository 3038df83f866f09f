// What one block of an attention kernel works on.
#pragma once

#include "common/softmax.cuh"

namespace evo {

/// A tile of queries of one head and the keys it may see.
template <class Element>
struct Task {
  int first_query;  // of the tile, in its sequence
  int queries;      // rows of the tile that exist
  int keys;         // keys visible to the tile's last query
  const Element *q, *k, *v;
  Element* out;  // q and out: the tile's first row; k and v: key 0

  /// Keys that the query in row `row` of the tile sees: those before this bound (causal: key j where j <= query).
  template <bool kCausal>
  __device__ __forceinline__ int visible_keys(int row) const {
    return kCausal ? min(keys, first_query + row + 1) : keys;
  }
};

/// Task number `tile` of plane `plane` = batch entry * heads + head; tensors are [batch, heads, length, kDim], contiguous, and one
/// plane has fewer than 2^31 elements (so that offsets within it are 32-bit).
template <int kTileQ, int kDim, bool kCausal, class Element>
__device__ __forceinline__ Task<Element> make_task(int tile, unsigned plane, const Element* q, const Element* k, const Element* v,
                                                   Element* out, int seq_q, int seq_kv) {
  Task<Element> task;
  task.first_query = tile * kTileQ;
  task.queries = min(kTileQ, seq_q - task.first_query);
  task.keys = kCausal ? min(seq_kv, task.first_query + task.queries) : seq_kv;
  const size_t rows = static_cast<size_t>(plane) * static_cast<unsigned>(seq_q * kDim) + task.first_query * kDim;
  const size_t keys = static_cast<size_t>(plane) * static_cast<unsigned>(seq_kv * kDim);
  task.q = q + rows;
  task.k = k + keys;
  task.v = v + keys;
  task.out = out + rows;
  return task;
}

/// Hides the keys of the tile from `first_key` on that are not visible to the rows of a warp; `first_row`: its first in the task.
template <bool kCausal, class Element, int kRowTiles, int kKeyTiles>
__device__ __forceinline__ void hide_unseen(float (&scores)[kRowTiles][kKeyTiles][4], const Task<Element>& task, int first_row,
                                            int first_key, int lane) {
  if (first_key + kKeyTiles * 8 <= task.template visible_keys<kCausal>(first_row)) return;  // its first row sees all
  int visible[kRowTiles][2];
#pragma unroll
  for (int half = 0; half < 2 * kRowTiles; ++half) {
    visible[half / 2][half % 2] = task.template visible_keys<kCausal>(first_row + 8 * half + lane / 4) - first_key;
  }
  hide_keys(scores, visible, lane);
}

}  // namespace evo
