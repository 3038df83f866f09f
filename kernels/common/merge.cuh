// Adding up partial results of the same rows: each warp, having seen some of the keys, leaves its rows in shared memory
// (its block's own, or that of another block of its cluster); then any thread can add up any columns of a row.
//
// A row there is kDim floats of unnormalised output, then four times its maximum and its sum: 8 floats more than kDim put
// the eight rows that a warp writes at once on banks of their own. Rows of one source lie together.
#pragma once

#include "common/ptx.cuh"
#include "common/softmax.cuh"

namespace evo {

/// Floats from one row to the next.
template <int kDim>
constexpr int merge_stride = kDim + 8;

/// Writes rows 8 half .. 8 half + 7 of a warp's tiles to the eight rows from `rows_smem`; kInCluster: an address of the cluster's window.
template <bool kInCluster, int kRowTiles, int kDim>
__device__ __forceinline__ void leave_rows(const Partial<kRowTiles, kDim>& partial, int half, unsigned rows_smem, int lane) {
  const unsigned to = rows_smem + lane / 4 * merge_stride<kDim> * 4 + lane % 4 * 8;
  const float(&output)[kDim / 8][4] = partial.output[half / 2];
#pragma unroll
  for (int n = 0; n < kDim / 8; ++n) {
    const float x = output[n][2 * (half % 2)], y = output[n][2 * (half % 2) + 1];
    kInCluster ? cluster_store(to + n * 32, x, y) : shared_store(to + n * 32, x, y);
  }
  const float x = partial.maximum[half / 2][half % 2], y = partial.sum[half / 2][half % 2];
  kInCluster ? cluster_store(to + kDim * 4, x, y) : shared_store(to + kDim * 4, x, y);  // four times, once for each lane of the quad
}

/// Adds up `kRows` rows of `kSources` sources under their common maxima and stores the first `rows` of them, four
/// columns a thread.
template <class Number, class Exp, int kDim, int kSources, int kRows, int kThreads>
__device__ __forceinline__ void add_up(const float* parts, typename Number::Element* out, int rows, int thread, float factor) {
  constexpr int kItems = kRows * kDim / 4;
#pragma unroll
  for (int first = 0; first < kItems; first += kThreads) {
    const int item = first + thread, row = item / (kDim / 4), column = item % (kDim / 4) * 4;
    if (kItems % kThreads != 0 && item >= kItems) break;
    const float* const part = parts + row * merge_stride<kDim>;
    float2 state[kSources];  // maximum and sum
    float top = kLowest, total = 0.0f, output[4] = {};
#pragma unroll
    for (int s = 0; s < kSources; ++s) {
      state[s] = *reinterpret_cast<const float2*>(part + s * kRows * merge_stride<kDim> + kDim);
      top = fmaxf(top, state[s].x);
    }
#pragma unroll
    for (int s = 0; s < kSources; ++s) {
      const float4 four = *reinterpret_cast<const float4*>(part + s * kRows * merge_stride<kDim> + column);
      const float share = Exp::rescale(state[s].x, top, factor);
      total += share * state[s].y;
      output[0] += share * four.x, output[1] += share * four.y, output[2] += share * four.z, output[3] += share * four.w;
    }
    const float inverse = rcp_approx(total);
    const uint2 words = {Number::pack(output[0] * inverse, output[1] * inverse), Number::pack(output[2] * inverse, output[3] * inverse)};
    if (row < rows) global_store(out + row * kDim + column, words);
  }
}

/// Where the sources of a tile of rows meet: the blocks of a cluster, each of which adds up `kOwnedRows` of the rows, or one block.
///
/// The memory must be free in every block when a warp sends: a barrier of the block or of the cluster comes before.
template <int kDim, int kSources, int kOwnedRows, int kThreads, bool kInCluster>
struct Meeting {
  unsigned smem;  // the same in every block
  int rank;       // of this block in its cluster

  /// Sends a warp's rows to the blocks that own them, then waits until all have come.
  template <int kRowTiles>
  __device__ __forceinline__ void send(const Partial<kRowTiles, kDim>& partial, int source, int first_row, int lane) const {
#pragma unroll
    for (int half = 0; half < 2 * kRowTiles; ++half) {
      const int row = first_row + 8 * half;
      unsigned to = smem + (source * kOwnedRows + row % kOwnedRows) * merge_stride<kDim> * 4;
      if constexpr (kInCluster) to = cluster_address(to, row / kOwnedRows);
      leave_rows<kInCluster>(partial, half, to, lane);
    }
    if constexpr (kInCluster) {
      cluster_arrive();
      cluster_wait();
    } else {
      __syncthreads();
    }
  }

  /// Adds up and stores the rows that this block owns; `out`: the tile's first row, of which `rows` exist.
  template <class Number, class Exp>
  __device__ __forceinline__ void store(const float* parts, typename Number::Element* out, int rows, int thread, float factor) const {
    const int first = rank * kOwnedRows;
    add_up<Number, Exp, kDim, kSources, kOwnedRows, kThreads>(parts, out + first * kDim, rows - first, thread, factor);
  }
};

}  // namespace evo
