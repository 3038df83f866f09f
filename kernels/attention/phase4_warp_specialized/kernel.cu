// Attention, phase 4: warp roles.
//
// New against phase 3: the warps of a block no longer all copy and then all compute. Producer warps only start copies
// (cp.async) and run ahead through a ring of key and value tiles; consumer warps only multiply (mma.m16n8k16, fp32
// accumulators in registers) and keep the online softmax. They meet on mbarriers in shared memory: a copy announces
// its own arrival, a consumer gives its stage back, and no barrier stops the whole block after the first one.
//
//   grid      (query tiles, heads, batch); causal tiles with most keys first
//   block     producer warps | key_splits groups of consumer_warps row warps
//   row warp  16 or 32 query rows and, of every key tile, the keys of its split: tile_k / key_splits
//   shared    barriers | queries | stages of (keys, values);   after the last tile, where the keys are split:
//             barriers | key_splits x tile_q rows of fp32 partial output, each followed by its maximum and sum
//
//   producer  wait empty[s] -> copy K -> K full[s] -> copy V -> V full[s]
//   consumer  wait K full[s] -> scores -> softmax -> wait V full[s] -> output -> arrive empty[s]
//
// Needs: q, k, v, out contiguous [batch, heads, length, head_dim], 16-byte aligned; seq_kv >= 1; scale > 0. Lengths need
// not divide by anything: missing rows are copied as zeros, missing keys masked, missing queries not stored.
// Causal: key j is visible to query i where j <= i.
#include "evo_config.cuh"

#include "common/element.cuh"
#include "common/merge.cuh"
#include "common/ptx.cuh"
#include "common/softmax.cuh"
#include "common/swizzle.cuh"
#include "common/task.cuh"
#include "common/tile.cuh"

namespace evo {

constexpr int kDim = Config::kHeadDim;
constexpr int kRowTiles = Config::kTileQ / (16 * Config::kConsumerWarps);
constexpr int kWarpKeys = Config::kTileK / Config::kKeySplits;
constexpr int kProducers = 32 * Config::kProducerWarps;
constexpr int kConsumers = 32 * Config::kConsumerWarps * Config::kKeySplits;

static_assert(kDim == 64 || kDim == 128, "head_dim");
static_assert(Config::kDtype != Dtype::kFloat32, "dtype");
static_assert(Config::kTileQ % (16 * Config::kConsumerWarps) == 0, "warp_owns_whole_tiles");
static_assert(Config::kTileQ <= 32 * Config::kConsumerWarps, "two_row_tiles_at_most");
static_assert(Config::kTileK % (16 * Config::kKeySplits) == 0, "split_owns_whole_tiles");
static_assert(Config::kKeySplits == 1 || Config::kWideStore, "merged_rows_are_stored_wide");
static_assert(Config::kLiveRegisters + 48 <= registers_per_thread(Config::kThreads * Config::kMinBlocks), "fits_registers");
static_assert(Config::kMinBlocks == 1 || Config::kLiveRegisters + 80 > registers_per_thread(Config::kThreads * Config::kMinBlocks),
              "min_blocks_binds");
static_assert(Config::kThreads == kProducers + kConsumers, "threads_match");

using Numbers = Number<Config::kDtype == Dtype::kBfloat16>;
using Element = Numbers::Element;
using Rows = SharedRows<kDim, Config::kSwizzle == Swizzle::kPad, Config::kSwizzle == Swizzle::kXor>;
using Exp = Exponential<Config::kFastExp>;

// Shared memory, in bytes from its start.
constexpr int kBarrierBytes = 128;
constexpr int kTileBytes = Config::kTileK * Rows::kStrideBytes;
constexpr int kRingStart = kBarrierBytes + Config::kTileQ * Rows::kStrideBytes;
constexpr int kRingBytes = kRingStart + 2 * Config::kStages * kTileBytes;
constexpr int kMergeRows = Config::kKeySplits == 1 ? 0 : Config::kKeySplits * Config::kTileQ;
constexpr int kMergeBytes = kBarrierBytes + 4 * kMergeRows * merge_stride<kDim>;
constexpr int kSharedBytes = kRingBytes > kMergeBytes ? kRingBytes : kMergeBytes;
static_assert(3 * 8 * Config::kStages <= kBarrierBytes, "barriers_fit");
static_assert(Config::kSharedBytes == kSharedBytes, "shared_bytes_match");
static_assert(kSharedBytes <= shared_bytes_per_block(), "fits_shared");

/// The barriers of one stage.
struct StageBarriers {
  unsigned empty, keys_full, values_full;
  __device__ explicit StageBarriers(unsigned smem, int stage)
      : empty(smem + 24 * stage), keys_full(empty + 8), values_full(Config::kSplitWaits ? empty + 16 : keys_full) {}
};

/// A producer thread: fills the ring, as far ahead as it has stages.
__device__ void produce(const Task<Element>& task, unsigned smem, int thread) {
  copy_rows_async<Rows, Config::kTileQ, kProducers>(smem + kBarrierBytes, task.q, task.queries, thread);
  const int tiles = (task.keys + Config::kTileK - 1) / Config::kTileK;
  int stage = 0, round = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    const StageBarriers barriers(smem, stage);
    const unsigned keys_smem = smem + kRingStart + 2 * stage * kTileBytes;
        const int valid = task.keys - tile * Config::kTileK;
    if (round > 0) mbarrier_wait(barriers.empty, (round - 1) & 1);
    copy_rows_async<Rows, Config::kTileK, kProducers>(keys_smem, task.k + tile * Config::kTileK * kDim, valid, thread);
    if constexpr (Config::kSplitWaits) cp_async_mbarrier_arrive(barriers.keys_full);
    copy_rows_async<Rows, Config::kTileK, kProducers>(keys_smem + kTileBytes, task.v + tile * Config::kTileK * kDim, valid, thread);
    cp_async_mbarrier_arrive(barriers.values_full);
    if (++stage == Config::kStages) stage = 0, ++round;
  }
  cp_async_wait<0>();  // a thread should not end with copies under way
}

/// A consumer warp: its rows against its keys of every tile.
__device__ __forceinline__ void consume(const Task<Element>& task, unsigned smem, int row_warp, int split, int lane, float factor,
                                        Partial<kRowTiles, kDim>& partial) {
  constexpr int kStepRows = 16 * Rows::kStrideBytes;  // bytes of one row tile
  const int first_row = row_warp * kRowTiles * 16;
  const int tiles = (task.keys + Config::kTileK - 1) / Config::kTileK;
  const int most_visible = task.visible_keys<Config::kCausal>(first_row + kRowTiles * 16 - 1);  // the warp's last row's
  const unsigned rows_smem = smem + kBarrierBytes + first_row * Rows::kStrideBytes;
  unsigned queries[kRowTiles][kDim / 16][4];
  int stage = 0, parity = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    const StageBarriers barriers(smem, stage);
    const unsigned keys_smem = smem + kRingStart + 2 * stage * kTileBytes + split * kWarpKeys * Rows::kStrideBytes;
    const int first_key = tile * Config::kTileK + split * kWarpKeys;
    float scores[kRowTiles][kWarpKeys / 8][4];
    mbarrier_wait(barriers.keys_full, parity);
    if (Config::kQueriesInRegisters && tile == 0) {
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) load_rows<Rows>(queries[i], rows_smem + i * kStepRows, lane);
    }
    if (first_key < most_visible) {
      score_tile<Numbers, Rows, kWarpKeys, !Config::kQueriesInRegisters>(scores, queries, rows_smem, keys_smem, lane);
      hide_unseen<Config::kCausal>(scores, task, first_row, first_key, lane);
      partial.soften<Exp, Config::kLazyRescale>(scores, factor);
    }
    if constexpr (Config::kSplitWaits) mbarrier_wait(barriers.values_full, parity);
    if (first_key < most_visible) {
      add_values<Numbers, Rows, kWarpKeys, kRowTiles>(partial.output, scores, keys_smem + kTileBytes, lane);
    }
    mbarrier_arrive(barriers.empty);
    if (++stage == Config::kStages) stage = 0, parity ^= 1;
  }
  partial.finish();
}

/// Adds up the splits of every row and stores the rows: all consumers.
__device__ __forceinline__ void merge_and_store(const Task<Element>& task, unsigned char* merge, int row_warp, int split, int consumer,
                                                float factor, const Partial<kRowTiles, kDim>& partial) {
  barrier_sync(1, kConsumers);  // the ring is read no more
#pragma unroll
  for (int half = 0; half < 2 * kRowTiles; ++half) {
    const int row = split * Config::kTileQ + row_warp * kRowTiles * 16 + half * 8;
    leave_rows<false>(partial, half, shared_address(merge) + row * merge_stride<kDim> * 4, consumer % 32);
  }
  barrier_sync(1, kConsumers);
  add_up<Numbers, Exp, kDim, Config::kKeySplits, Config::kTileQ, kConsumers>(reinterpret_cast<const float*>(merge), task.out,
                                                                             task.queries, consumer, factor);
}

}  // namespace evo

extern "C" __global__ void __launch_bounds__(evo::Config::kThreads, evo::Config::kMinBlocks)
    attention_forward(const evo::Element* q, const evo::Element* k, const evo::Element* v, evo::Element* out, int batch, int heads,
                      int seq_q, int seq_kv, float scale) {
  using namespace evo;
  extern __shared__ __align__(128) unsigned char shared[];
  const unsigned smem = shared_address(shared);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const float factor = Exp::factor(scale);
  if (threadIdx.x < Config::kStages) {
    const StageBarriers barriers(smem, threadIdx.x);
    mbarrier_init(barriers.empty, kConsumers);
    mbarrier_init(barriers.keys_full, kProducers);
    if constexpr (Config::kSplitWaits) mbarrier_init(barriers.values_full, kProducers);
  }
  __syncthreads();
  const int tile = Config::kCausal ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
  const auto task = make_task<Config::kTileQ, kDim, Config::kCausal>(tile, blockIdx.z * heads + blockIdx.y, q, k, v, out, seq_q, seq_kv);
  if (warp < Config::kProducerWarps) {
    produce(task, smem, threadIdx.x);
    return;
  }
  const int row_warp = (warp - Config::kProducerWarps) % Config::kConsumerWarps;
  const int split = (warp - Config::kProducerWarps) / Config::kConsumerWarps;
  Partial<kRowTiles, kDim> partial;
  consume(task, smem, row_warp, split, lane, factor, partial);
  if constexpr (Config::kKeySplits > 1) {
    merge_and_store(task, shared + kBarrierBytes, row_warp, split, threadIdx.x - kProducers, factor, partial);
  } else {
#pragma unroll
    for (int i = 0; i < 2 * kRowTiles; ++i) {
      const int row = row_warp * kRowTiles * 16 + i * 8 + lane / 4;
      store_row<Numbers, kDim, Config::kWideStore>(task.out + row * kDim, partial.output[i / 2], i % 2,
                                                   rcp_approx(partial.sum[i / 2][i % 2]), row < task.queries, lane);
    }
  }
}
