// Attention, phase 0: the scalar baseline, what one writes first.
//
// A block owns a tile of query rows and walks over the keys, a tile at a time, in three passes with a barrier after
// each: scores into shared memory, a softmax pass over them, output. All arithmetic is scalar fp32. It is not slow on
// purpose: loads are 16 bytes wide, shared rows are padded, and a thread computes a small rectangle of scores and of
// output, so that what it reads from shared memory serves several multiply-adds.
//
//   grid     (query tiles, heads, batch)
//   thread   scores and output: rows_per_thread rows; of each, every `kColumns`th key and every `kColumns`th pair of columns
//            softmax: one whole row, and threads without a row wait
//   shared   queries | keys | values | scores (fp32) | of every row: maximum, sum, shrink
//
//   tile     load keys, values | scores = queries keys^T | maximum, weights, sum, shrink | output = output shrink + weights values
//                              ^ barrier                 ^ barrier                       ^ barrier                            ^
//
// Needs: q, k, v, out contiguous [batch, heads, length, head_dim], 16-byte aligned; seq_kv >= 1; scale > 0. Lengths need
// not divide by anything: missing rows are read as zeros, missing keys masked, missing queries not stored.
// Causal: key j is visible to query i where j <= i.
#include "evo_config.cuh"

#include "common/element.cuh"
#include "common/load.cuh"
#include "common/ptx.cuh"
#include "common/softmax.cuh"
#include "common/swizzle.cuh"
#include "common/task.cuh"

namespace evo {

constexpr int kDim = Config::kHeadDim;
constexpr int kThreads = Config::kThreads;
constexpr int kRows = Config::kRowsPerThread;
constexpr int kColumns = kThreads * kRows / Config::kTileQ;  // threads that share the same rows
static_assert(kDim == 64 || kDim == 128, "head_dim");
static_assert(Config::kDtype != Dtype::kFloat32, "dtype");
static_assert(kThreads * kRows % Config::kTileQ == 0 && kColumns >= 1, "threads_share_rows_evenly");
static_assert(kThreads * kRows <= Config::kTileQ * Config::kTileK, "threads_have_keys");
static_assert(kThreads * kRows * 2 <= Config::kTileQ * kDim, "threads_have_columns");
static_assert(Config::kLiveRegisters + 48 <= registers_per_thread(kThreads), "fits_registers");

constexpr int kKeysPerThread = Config::kTileK / kColumns;
constexpr int kPairsPerThread = kDim / 2 / kColumns;

using Numbers = Number<Config::kDtype == Dtype::kBfloat16>;
using Element = Numbers::Element;
using Rows = SharedRows<kDim, Config::kPad, false>;
using Exp = Exponential<Config::kFastExp>;

// Shared memory, in bytes from its start.
constexpr int kScoreStride = Config::kTileK + 1;  // floats; one more than a multiple of 32: threads of a softmax pass differ in bank
constexpr int kKeysStart = Config::kTileQ * Rows::kStrideBytes;
constexpr int kValuesStart = kKeysStart + Config::kTileK * Rows::kStrideBytes;
constexpr int kScoresStart = kValuesStart + Config::kTileK * Rows::kStrideBytes;
constexpr int kRowStateStart = kScoresStart + 4 * Config::kTileQ * kScoreStride;
constexpr int kSharedBytes = kRowStateStart + 3 * 4 * Config::kTileQ;
static_assert(Config::kSharedBytes == kSharedBytes, "shared_bytes_match");
static_assert(kSharedBytes <= shared_bytes_per_block(), "fits_shared");

__device__ __forceinline__ float2 unpack(__half2 pair) { return __half22float2(pair); }
__device__ __forceinline__ float2 unpack(__nv_bfloat162 pair) { return __bfloat1622float2(pair); }
template <class Element>
struct Pair {
  using Type = __half2;
};
template <>
struct Pair<__nv_bfloat16> {
  using Type = __nv_bfloat162;
};

/// Reads two neighbouring elements as floats.
__device__ __forceinline__ float2 load_pair(const unsigned char* smem) { return unpack(*reinterpret_cast<const Pair<Element>::Type*>(smem)); }

/// Reads eight neighbouring elements, 16-byte aligned, as floats.
__device__ __forceinline__ void load_chunk(float (&to)[8], const unsigned char* smem) {
  const uint4 words = *reinterpret_cast<const uint4*>(smem);
  Pair<Element>::Type pairs[4];
  memcpy(pairs, &words, sizeof(words));
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 two = unpack(pairs[i]);
    to[2 * i] = two.x, to[2 * i + 1] = two.y;
  }
}

/// Where a thread stands: its rows, and which share of keys and column pairs.
struct Place {
  int first_row = threadIdx.x / kColumns * kRows;
  int column = threadIdx.x % kColumns;
};

/// scores = queries keys^T, this thread's rectangle.
__device__ __forceinline__ void score(unsigned char* shared, const Place& place) {
  float scores[kRows][kKeysPerThread] = {};
#pragma unroll 2
  for (int chunk = 0; chunk < Rows::kChunks; ++chunk) {
    float queries[kRows][8];
#pragma unroll
    for (int r = 0; r < kRows; ++r) load_chunk(queries[r], shared + Rows::offset(place.first_row + r, chunk));
#pragma unroll
    for (int n = 0; n < kKeysPerThread; ++n) {
      float key[8];
      load_chunk(key, shared + kKeysStart + Rows::offset(place.column + n * kColumns, chunk));
#pragma unroll
      for (int i = 0; i < kRows * 8; ++i) scores[i / 8][n] = fmaf(queries[i / 8][i % 8], key[i % 8], scores[i / 8][n]);
    }
  }
  float* scores_smem = reinterpret_cast<float*>(shared + kScoresStart);
#pragma unroll
  for (int i = 0; i < kRows * kKeysPerThread; ++i) {
    const int key = place.column + i % kKeysPerThread * kColumns;
    scores_smem[(place.first_row + i / kKeysPerThread) * kScoreStride + key] = scores[i / kKeysPerThread][i % kKeysPerThread];
  }
}

/// Turns one row of scores into weights under its new maximum; a thread does all of it alone.
__device__ __forceinline__ void soften(float* scores_smem, float* state_smem, int visible, float factor) {
  const int keys = min(visible, Config::kTileK);
  const float before = state_smem[0];
  float maximum = before, sum = 0.0f;
  for (int key = 0; key < keys; ++key) maximum = fmaxf(maximum, scores_smem[key]);
  const float shift = maximum * factor;
  for (int key = 0; key < Config::kTileK; ++key) {
    const float weight = key < keys ? Exp::weight(scores_smem[key], factor, shift) : 0.0f;
    scores_smem[key] = weight;
    sum += weight;
  }
  const float shrink = Exp::rescale(before, maximum, factor);
  state_smem[0] = maximum;
  state_smem[1] = state_smem[1] * shrink + sum;
  state_smem[2] = shrink;
}

/// output = output shrink + weights values, this thread's rectangle.
__device__ __forceinline__ void add_values(float (&output)[kRows][kPairsPerThread][2], const unsigned char* shared, const Place& place) {
  const float* weights_smem = reinterpret_cast<const float*>(shared + kScoresStart) + place.first_row * kScoreStride;
  const float* state_smem = reinterpret_cast<const float*>(shared + kRowStateStart) + 3 * place.first_row;
#pragma unroll
  for (int i = 0; i < kRows * kPairsPerThread * 2; ++i) {
    const int r = i / (2 * kPairsPerThread);
    output[r][i / 2 % kPairsPerThread][i % 2] *= state_smem[3 * r + 2];
  }
#pragma unroll 4
  for (int key = 0; key < Config::kTileK; ++key) {
    float weights[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) weights[r] = weights_smem[r * kScoreStride + key];
#pragma unroll
    for (int n = 0; n < kPairsPerThread; ++n) {
      const float2 value = load_pair(shared + kValuesStart + key * Rows::kStrideBytes + 4 * (place.column + n * kColumns));
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        output[r][n][0] = fmaf(weights[r], value.x, output[r][n][0]);
        output[r][n][1] = fmaf(weights[r], value.y, output[r][n][1]);
      }
    }
  }
}

}  // namespace evo

extern "C" __global__ void __launch_bounds__(evo::kThreads)
    attention_forward(const evo::Element* q, const evo::Element* k, const evo::Element* v, evo::Element* out, int batch, int heads,
                      int seq_q, int seq_kv, float scale) {
  using namespace evo;
  extern __shared__ __align__(128) unsigned char shared[];
  float* const scores_smem = reinterpret_cast<float*>(shared + kScoresStart);
  float* const state_smem = reinterpret_cast<float*>(shared + kRowStateStart);
  const auto task = make_task<Config::kTileQ, kDim, Config::kCausal>(blockIdx.x, blockIdx.z * heads + blockIdx.y, q, k, v, out, seq_q, seq_kv);
  const Place place;
  const float factor = Exp::factor(scale);

  copy_rows<Rows, Config::kTileQ, kThreads>(shared, task.q, task.queries, threadIdx.x);
  for (int row = threadIdx.x; row < Config::kTileQ; row += kThreads) {
    state_smem[3 * row] = kLowest;
    state_smem[3 * row + 1] = 0.0f;
  }
  float output[kRows][kPairsPerThread][2] = {};
  for (int first_key = 0; first_key < task.keys; first_key += Config::kTileK) {
    const size_t skipped = static_cast<size_t>(first_key) * kDim;
    __syncthreads();  // the tile before is read no more
    copy_rows<Rows, Config::kTileK, kThreads>(shared + kKeysStart, task.k + skipped, task.keys - first_key, threadIdx.x);
    copy_rows<Rows, Config::kTileK, kThreads>(shared + kValuesStart, task.v + skipped, task.keys - first_key, threadIdx.x);
    __syncthreads();  // the tile is there
    score(shared, place);
    __syncthreads();  // so are its scores
    for (int row = threadIdx.x; row < Config::kTileQ; row += kThreads) {
      soften(scores_smem + row * kScoreStride, state_smem + 3 * row, task.visible_keys<Config::kCausal>(row) - first_key, factor);
    }
    __syncthreads();  // so are its weights
    add_values(output, shared, place);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = place.first_row + r;
    if (row >= task.queries) break;
    const float inverse = 1.0f / state_smem[3 * row + 1];
#pragma unroll
    for (int n = 0; n < kPairsPerThread; ++n) {
      const unsigned pair = Numbers::pack(output[r][n][0] * inverse, output[r][n][1] * inverse);
      *reinterpret_cast<unsigned*>(task.out + static_cast<size_t>(row) * kDim + 2 * (place.column + n * kColumns)) = pair;
    }
  }
}
