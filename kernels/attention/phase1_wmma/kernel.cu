// Attention, phase 1: tensor cores.
//
// New against phase 0: both products run on WMMA tiles of 16x16x16. The three passes stay. Which lane holds which element
// of a WMMA accumulator is not specified, so all that concerns rows (mask, maximum, weights, sums) goes through shared memory: a
// product stores its tile of scores there and a softmax pass, several lanes to a row, turns them into 16-bit weights in
// place. For the same reason nobody can rescale an accumulator row by row. Two ways around that, one knob:
//
//   rescale    as in phase 0. The output lives in shared memory; the softmax pass rescales its rows, the second
//              product loads them as accumulators and stores them back
//   two_pass   walks over the keys twice: first for every row's maximum and sum only, then, with these known,
//              for weights and an output that stays in its accumulators. Half as many products more, no rescaling
//
//   grid     (query tiles, heads, batch)
//   block    row_warps x column_warps; a warp owns 16 or 32 query rows: of their scores tile_k / column_warps keys,
//            of their output head_dim / column_warps columns
//   softmax  row_lanes neighbouring threads per row
//   shared   queries | keys | values | scores (fp32), each row overwritten by its weights | maximum, sum of every row
//            | output (fp32); two_pass: the output comes at the end, over keys, values and scores
//
//   tile     load keys, values | scores -> shared | maximum, weights, sum | output += weights values
//                              ^ barrier          ^ barrier               ^ barrier                ^
//
// Needs: q, k, v, out contiguous [batch, heads, length, head_dim], 16-byte aligned; seq_kv >= 1; scale > 0. Lengths need
// not divide by anything: missing rows are read as zeros, missing keys masked, missing queries not stored.
// Causal: key j is visible to query i where j <= i.
#include "evo_config.cuh"

#include <mma.h>

#include "common/element.cuh"
#include "common/load.cuh"
#include "common/ptx.cuh"
#include "common/softmax.cuh"
#include "common/swizzle.cuh"
#include "common/task.cuh"

namespace evo {

namespace wmma = nvcuda::wmma;

constexpr int kDim = Config::kHeadDim;
constexpr int kThreads = 32 * Config::kRowWarps * Config::kColumnWarps;
constexpr int kRowTiles = Config::kTileQ / (16 * Config::kRowWarps);
constexpr int kKeyTiles = Config::kTileK / (16 * Config::kColumnWarps);
constexpr int kOutputTiles = kDim / (16 * Config::kColumnWarps);
constexpr bool kRescale = Config::kSoftmax == Softmax::kRescale;

static_assert(kDim == 64 || kDim == 128, "head_dim");
static_assert(Config::kDtype != Dtype::kFloat32, "dtype");
static_assert(Config::kTileQ % (16 * Config::kRowWarps) == 0, "warp_owns_whole_row_tiles");
static_assert(Config::kTileQ <= 32 * Config::kRowWarps, "two_row_tiles_at_most");
static_assert(Config::kTileK % (16 * Config::kColumnWarps) == 0, "warp_owns_whole_key_tiles");
static_assert(Config::kThreads == kThreads, "threads_match");

using Numbers = Number<Config::kDtype == Dtype::kBfloat16>;
using Element = Numbers::Element;
using Rows = SharedRows<kDim, Config::kPad, false>;
using Exp = Exponential<Config::kFastExp>;
using Left = wmma::fragment<wmma::matrix_a, 16, 16, 16, Element, wmma::row_major>;
using RightTransposed = wmma::fragment<wmma::matrix_b, 16, 16, 16, Element, wmma::col_major>;
using Right = wmma::fragment<wmma::matrix_b, 16, 16, 16, Element, wmma::row_major>;
using Accumulator = wmma::fragment<wmma::accumulator, 16, 16, 16, float>;

// Shared memory. Strides in elements of what the rows hold; starts in bytes, all multiples of the 32 that WMMA asks for.
constexpr int kStride = Rows::kStrideBytes / 2;
constexpr int kScoreStride = Config::kTileK + (Config::kPad ? 4 : 0);
constexpr int kWeightStride = 2 * kScoreStride;
constexpr int kOutputStride = kDim + (Config::kPad ? 4 : 0);
constexpr int kKeysStart = Config::kTileQ * Rows::kStrideBytes;
constexpr int kValuesStart = kKeysStart + Config::kTileK * Rows::kStrideBytes;
constexpr int kScoresStart = kValuesStart + Config::kTileK * Rows::kStrideBytes;
constexpr int kScoresEnd = kScoresStart + 4 * Config::kTileQ * kScoreStride;
constexpr int kOutputStart = kRescale ? kScoresEnd : kKeysStart;
constexpr int kOutputEnd = kOutputStart + 4 * Config::kTileQ * kOutputStride;
constexpr int kRowStateStart = kOutputEnd > kScoresEnd ? kOutputEnd : kScoresEnd;
constexpr int kSharedBytes = kRowStateStart + 2 * 4 * Config::kTileQ;
static_assert(Config::kSharedBytes == kSharedBytes, "shared_bytes_match");
static_assert(kSharedBytes <= shared_bytes_per_block(), "fits_shared");

/// The block's shared memory by name, and where this warp stands.
struct Room {
  unsigned char* shared;
  int row = threadIdx.x / 32 / Config::kColumnWarps * kRowTiles * 16;  // this warp's first
  int column_warp = threadIdx.x / 32 % Config::kColumnWarps;

  __device__ const Element* queries() const { return reinterpret_cast<const Element*>(shared); }
  __device__ const Element* keys() const { return reinterpret_cast<const Element*>(shared + kKeysStart); }
  __device__ const Element* values() const { return reinterpret_cast<const Element*>(shared + kValuesStart); }
  __device__ float* scores() const { return reinterpret_cast<float*>(shared + kScoresStart); }
  __device__ Element* weights() const { return reinterpret_cast<Element*>(shared + kScoresStart); }
  __device__ float* output() const { return reinterpret_cast<float*>(shared + kOutputStart); }
  __device__ float* maximum() const { return reinterpret_cast<float*>(shared + kRowStateStart); }
  __device__ float* sum() const { return maximum() + Config::kTileQ; }
};

/// First product: this warp's scores, into shared memory.
__device__ __forceinline__ void score(const Room& room) {
#pragma unroll
  for (int n = 0; n < kKeyTiles; ++n) {
    const int key = (room.column_warp * kKeyTiles + n) * 16;
    Accumulator scores[kRowTiles];
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) wmma::fill_fragment(scores[i], 0.0f);
#pragma unroll
    for (int d = 0; d < kDim; d += 16) {
      RightTransposed keys;
      wmma::load_matrix_sync(keys, room.keys() + key * kStride + d, kStride);
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) {
        Left queries;
        wmma::load_matrix_sync(queries, room.queries() + (room.row + 16 * i) * kStride + d, kStride);
        wmma::mma_sync(scores[i], queries, keys, scores[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
      float* to = room.scores() + (room.row + 16 * i) * kScoreStride + key;
      wmma::store_matrix_sync(to, scores[i], kScoreStride, wmma::mem_row_major);
    }
  }
}

/// Maximum and sum over the `row_lanes` neighbouring lanes that share a row.
__device__ __forceinline__ float row_max(float x) {
#pragma unroll
  for (int step = 1; step < Config::kRowLanes; step *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}
__device__ __forceinline__ float row_sum(float x) {
#pragma unroll
  for (int step = 1; step < Config::kRowLanes; step *= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

/// The softmax pass over one tile of scores.
///
/// kCounts: takes the tile into the rows' maxima and sums (and rescales the output, where that is in shared memory).
/// kWeighs: writes the weights over the scores.
template <bool kCounts, bool kWeighs>
__device__ __forceinline__ void soften(const Room& room, const Task<Element>& task, int first_key, float factor) {
  constexpr int kLanes = Config::kRowLanes;
  const int lane = threadIdx.x % kLanes;
  for (int row = threadIdx.x / kLanes; row < Config::kTileQ; row += kThreads / kLanes) {  // all lanes of a warp take as many turns
    const int visible = task.visible_keys<Config::kCausal>(row) - first_key;
    const float before = room.maximum()[row];
    float scores[Config::kTileK / kLanes];
    float maximum = before, sum = 0.0f;
#pragma unroll
    for (int i = 0; i < Config::kTileK / kLanes; ++i) {
      const int key = lane + i * kLanes;
      scores[i] = key < visible ? room.scores()[row * kScoreStride + key] : minus_infinity();
      maximum = fmaxf(maximum, scores[i]);
    }
    if constexpr (kCounts) maximum = row_max(maximum);
    const float shift = (kCounts ? maximum : before) * factor;
#pragma unroll
    for (int i = 0; i < Config::kTileK / kLanes; ++i) {
      scores[i] = Exp::weight(scores[i], factor, shift);
      sum += scores[i];
    }
    const float shrink = Exp::rescale(before, maximum, factor);
    const float total = kCounts ? room.sum()[row] * shrink + row_sum(sum) : 0.0f;
    __syncwarp();  // the whole row has been read: its weights may go over its scores
    if constexpr (kWeighs) {
#pragma unroll
      for (int i = 0; i < Config::kTileK / kLanes; ++i) room.weights()[row * kWeightStride + lane + i * kLanes] = Element(scores[i]);
    }
    if (kCounts && lane == 0) {
      room.maximum()[row] = maximum;
      room.sum()[row] = total;
    }
    if constexpr (kCounts && kRescale) {
      float* output = room.output() + row * kOutputStride;
      for (int column = lane; column < kDim; column += kLanes) output[column] = first_key == 0 ? 0.0f : output[column] * shrink;
    }
  }
}

/// Second product: output += weights values, this warp's tiles; between calls they are in `output` or in shared memory.
__device__ __forceinline__ void add_values(Accumulator (&output)[kOutputTiles][kRowTiles], const Room& room) {
#pragma unroll
  for (int n = 0; n < kOutputTiles; ++n) {
    const int column = (room.column_warp * kOutputTiles + n) * 16;
    float* output_smem = room.output() + room.row * kOutputStride + column;
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
      if constexpr (kRescale) {
        wmma::load_matrix_sync(output[n][i], output_smem + 16 * i * kOutputStride, kOutputStride, wmma::mem_row_major);
      }
    }
#pragma unroll
    for (int key = 0; key < Config::kTileK; key += 16) {
      Right values;
      wmma::load_matrix_sync(values, room.values() + key * kStride + column, kStride);
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) {
        Left weights;
        wmma::load_matrix_sync(weights, room.weights() + (room.row + 16 * i) * kWeightStride + key, kWeightStride);
        wmma::mma_sync(output[n][i], weights, values, output[n][i]);
      }
    }
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
      if constexpr (kRescale) {
        wmma::store_matrix_sync(output_smem + 16 * i * kOutputStride, output[n][i], kOutputStride, wmma::mem_row_major);
      }
    }
  }
}

/// One walk over the keys.
template <bool kCounts, bool kWeighs>
__device__ __forceinline__ void walk(Accumulator (&output)[kOutputTiles][kRowTiles], const Room& room, const Task<Element>& task,
                                     float factor) {
  for (int first_key = 0; first_key < task.keys; first_key += Config::kTileK) {
    const size_t skipped = static_cast<size_t>(first_key) * kDim;
    const int valid = task.keys - first_key;
    __syncthreads();  // the tile before is read no more
    copy_rows<Rows, Config::kTileK, kThreads>(room.shared + kKeysStart, task.k + skipped, valid, threadIdx.x);
    if constexpr (kWeighs) copy_rows<Rows, Config::kTileK, kThreads>(room.shared + kValuesStart, task.v + skipped, valid, threadIdx.x);
    __syncthreads();  // the tile is there
    score(room);
    __syncthreads();  // so are its scores
    soften<kCounts, kWeighs>(room, task, first_key, factor);
    if constexpr (kWeighs) {
      __syncthreads();  // so are its weights
      add_values(output, room);
    }
  }
}

}  // namespace evo

extern "C" __global__ void __launch_bounds__(evo::kThreads)
    attention_forward(const evo::Element* q, const evo::Element* k, const evo::Element* v, evo::Element* out, int batch, int heads,
                      int seq_q, int seq_kv, float scale) {
  using namespace evo;
  extern __shared__ __align__(128) unsigned char shared[];
  const Room room{shared};
  const auto task = make_task<Config::kTileQ, kDim, Config::kCausal>(blockIdx.x, blockIdx.z * heads + blockIdx.y, q, k, v, out, seq_q, seq_kv);
  const float factor = Exp::factor(scale);

  copy_rows<Rows, Config::kTileQ, kThreads>(shared, task.q, task.queries, threadIdx.x);
  for (int row = threadIdx.x; row < Config::kTileQ; row += kThreads) room.maximum()[row] = kLowest, room.sum()[row] = 0.0f;
  Accumulator output[kOutputTiles][kRowTiles];
  if constexpr (kRescale) {
    walk<true, true>(output, room, task, factor);
  } else {
#pragma unroll
    for (int i = 0; i < kOutputTiles * kRowTiles; ++i) wmma::fill_fragment(output[i / kRowTiles][i % kRowTiles], 0.0f);
    walk<true, false>(output, room, task, factor);
    walk<false, true>(output, room, task, factor);
    __syncthreads();  // keys, values and weights are read no more: the output goes over them
#pragma unroll
    for (int i = 0; i < kOutputTiles * kRowTiles; ++i) {
      float* to = room.output() + (room.row + 16 * (i % kRowTiles)) * kOutputStride + (room.column_warp * kOutputTiles + i / kRowTiles) * 16;
      wmma::store_matrix_sync(to, output[i / kRowTiles][i % kRowTiles], kOutputStride, wmma::mem_row_major);
    }
  }
  __syncthreads();  // the output is in shared memory
  for (int item = threadIdx.x; item < task.queries * Rows::kChunks; item += kThreads) {
    const int row = item / Rows::kChunks;
    const float* from = room.output() + row * kOutputStride + item % Rows::kChunks * 8;
    const float inverse = 1.0f / room.sum()[row];
    unsigned words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = Numbers::pack(from[2 * i] * inverse, from[2 * i + 1] * inverse);
    *reinterpret_cast<uint4*>(task.out + static_cast<size_t>(item) * 8) = make_uint4(words[0], words[1], words[2], words[3]);
  }
}
