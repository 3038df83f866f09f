// What one block of an attention kernel works on.
#pragma once

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

/// Task number `tile` of head blockIdx.y of batch blockIdx.z; tensors are [batch, heads, length, kDim], contiguous.
template <int kTileQ, int kDim, bool kCausal, class Element>
__device__ __forceinline__ Task<Element> make_task(int tile, const Element* q, const Element* k, const Element* v, Element* out,
                                                   int heads, int seq_q, int seq_kv) {
  const size_t plane = static_cast<size_t>(blockIdx.z) * heads + blockIdx.y;
  Task<Element> task;
  task.first_query = tile * kTileQ;
  task.queries = min(kTileQ, seq_q - task.first_query);
  task.keys = kCausal ? min(seq_kv, task.first_query + task.queries) : seq_kv;
  task.q = q + (plane * seq_q + task.first_query) * kDim;
  task.k = k + plane * seq_kv * kDim;
  task.v = v + plane * seq_kv * kDim;
  task.out = out + (plane * seq_q + task.first_query) * kDim;
  return task;
}

}  // namespace evo
