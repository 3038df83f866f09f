// Attention, phase 5: the shortest way from launch to result.
//
// New against phase 4: small problems end with the multiprocessors mostly waiting, so everything here shortens the
// chain of waits. No warp has a role: each group of row warps copies its own keys, all stages at once, and starts on
// the first while the later ones arrive. The keys are shared out twice: among groups of warps of a block (key_splits)
// and, on sm_90, among the blocks of a cluster (cluster_splits), whose shares meet in distributed shared memory. A warp
// may own several row tiles, so that one key fragment read from shared memory serves 16, 32 or 64 queries.
//
//   grid     (cluster_splits x query tiles, heads, batch) or, heads_first, (cluster_splits x heads, batch, query tiles);
//            clusters of cluster_splits blocks; causal: the tiles with most keys first
//   block    key_splits groups of tile_q / (16 row_tiles) row warps
//   source   a group of a block of a cluster: takes every (key_splits x cluster_splits)th tile of tile_k keys
//   shared   queries (unless direct) | a ring of stages x (keys, values) for each group | merge
//   merge    for every source, this block's rows of fp32 partial output, each followed by its maximum and sum; a block
//            of a cluster adds up tile_q / cluster_splits rows. In its own room (merge_apart) or over the ring.
//
//   group    copy all stages -> for each tile: wait K -> scores -> softmax -> (wait V) -> output -> refill the ring
//            or, interleave: the next tile's scores stand before this tile's softmax, without a branch in between, so that
//            tensor cores and exponentials overlap within one warp
//   merge    one barrier (two over the ring): each warp sends its rows to the block that owns them, then all add up
//
// Needs: q, k, v, out contiguous [batch, heads, length, head_dim], 16-byte aligned; seq_kv >= 1; scale > 0. Lengths need
// not divide by anything: missing rows are copied as zeros, missing keys masked, missing queries not stored.
// Causal: key j is visible to query i where j <= i; tiles that no row of a block sees are not copied, and (unless
// interleaved) tiles that no row of a warp sees not computed.
#include "evo_config.cuh"

#include "common/element.cuh"
#include "common/merge.cuh"
#include "common/ptx.cuh"
#include "common/queries.cuh"
#include "common/ring.cuh"
#include "common/softmax.cuh"
#include "common/swizzle.cuh"
#include "common/task.cuh"
#include "common/tile.cuh"

namespace evo {

constexpr int kDim = Config::kHeadDim;
constexpr int kRowTiles = Config::kRowTiles;
constexpr int kWarpRows = 16 * kRowTiles;
constexpr int kRowWarps = Config::kTileQ < kWarpRows ? 1 : Config::kTileQ / kWarpRows;
constexpr int kGroupThreads = 32 * kRowWarps;
constexpr int kThreads = kGroupThreads * Config::kKeySplits;
constexpr int kSources = Config::kKeySplits * Config::kClusterSplits;
constexpr int kOwnedRows = Config::kTileQ / Config::kClusterSplits;
constexpr bool kInCluster = Config::kClusterSplits > 1;
constexpr bool kTilesFirst = Config::kOrder == Order::kTilesFirst;

static_assert(kDim == 64 || kDim == 128, "head_dim");
static_assert(Config::kDtype != Dtype::kFloat32, "dtype");
static_assert(Config::kTileQ % kWarpRows == 0, "warp_owns_whole_tiles");
static_assert(!Config::kInterleave || Config::kStages > 1, "interleave_needs_stages");
static_assert(Config::kTileQ % (8 * Config::kClusterSplits) == 0, "blocks_own_whole_rows");
static_assert(Config::kClusterSplits == 1 || architecture() >= 90, "clusters_need_sm_90");
static_assert(!Config::kMergeApart || kSources > 1, "merge_apart_needs_sources");
static_assert(Config::kLiveRegisters + 48 <= registers_per_thread(kThreads * Config::kMinBlocks), "fits_registers");
static_assert(Config::kMinBlocks == 1 || Config::kLiveRegisters + 80 > registers_per_thread(kThreads * Config::kMinBlocks),
              "min_blocks_binds");
static_assert(Config::kThreads == kThreads || Config::kTileQ < kWarpRows, "threads_match");

using Numbers = Number<Config::kDtype == Dtype::kBfloat16>;
using Element = Numbers::Element;
using Rows = SharedRows<kDim, Config::kSwizzle == Swizzle::kPad, Config::kSwizzle == Swizzle::kXor>;
using Exp = Exponential<Config::kFastExp>;
using Scores = float[kRowTiles][Config::kTileK / 8][4];
constexpr auto kSource = Config::kQueries == Queries::kDirect      ? QuerySource::kGlobal
                         : Config::kQueries == Queries::kRegisters ? QuerySource::kRegisters
                                                                   : QuerySource::kShared;
using WarpQueries = QueryRows<Numbers, Rows, kRowTiles, kSource>;
using Ring = GroupRing<Element, Rows, Config::kTileK, Config::kStages, kGroupThreads, kSources, Config::kSplitWaits>;

// Shared memory, in bytes from its start.
constexpr int kQueryBytes = Config::kQueries == Queries::kDirect ? 0 : Config::kTileQ * Rows::kStrideBytes;
constexpr int kRingBytes = kQueryBytes + Config::kKeySplits * Ring::kBytes;
constexpr int kMergeStart = Config::kMergeApart ? kRingBytes : 0;
constexpr int kMergeBytes = kSources == 1 ? 0 : 4 * kSources * kOwnedRows * merge_stride<kDim>;
constexpr int kSharedBytes = kMergeStart + kMergeBytes > kRingBytes ? kMergeStart + kMergeBytes : kRingBytes;
static_assert(Config::kSharedBytes == kSharedBytes, "shared_bytes_match");
static_assert(kSharedBytes <= shared_bytes_per_block(), "fits_shared");

using Merge = Meeting<kDim, kSources, kOwnedRows, kThreads, kInCluster>;

// Groups of cp.async copies: one or two for a tile; this many after the prologue.
constexpr int kGroupsPerTile = Ring::kGroupsPerTile;
constexpr int kFilled = kGroupsPerTile * Config::kStages;

/// Where a thread stands.
struct Place {
  int lane = threadIdx.x % 32;
  int split = threadIdx.x / kGroupThreads;
  int in_group = threadIdx.x % kGroupThreads;
  int first_row = in_group / 32 * kWarpRows;  // of this warp, in the block's tile
  int rank = blockIdx.x % Config::kClusterSplits;  // in the cluster
  int source = rank * Config::kKeySplits + split;
};

/// Lets the row warps of one group meet.
__device__ __forceinline__ void group_sync(const Place& place) {
  if constexpr (kRowWarps == 1) {
    __syncwarp();
  } else if constexpr (Config::kKeySplits == 1) {
    __syncthreads();
  } else {
    barrier_sync(1 + place.split, kGroupThreads);
  }
}

/// A warp at work on the tiles of its group's ring.
struct Worker {
  const Task<Element>& task;
  const Place& place;
  const Ring& ring;
  const WarpQueries& queries;
  float factor;

  __device__ __forceinline__ void score(Scores& scores, int stage) const {
    queries.template score<Config::kTileK>(scores, ring.keys_smem(stage), place.lane);
  }

  __device__ __forceinline__ void soften(Partial<kRowTiles, kDim>& partial, Scores& scores) const {
    partial.soften<Exp, Config::kLazyRescale>(scores, factor);
  }

  __device__ __forceinline__ void hide(Scores& scores, int i) const {
    hide_unseen<Config::kCausal>(scores, task, place.first_row, ring.first_key(i), place.lane);
  }

  __device__ __forceinline__ void add(Partial<kRowTiles, kDim>& partial, const Scores& scores, int stage) const {
    add_values<Numbers, Rows, Config::kTileK, kRowTiles>(partial.output, scores, ring.values_smem(stage), place.lane);
  }

  /// One tile after the other. The first tile's keys are there (and its values, where they are not waited for apart).
  __device__ __forceinline__ void run(Partial<kRowTiles, kDim>& partial) const {
    constexpr int kLag = Config::kStages > 1 ? 1 : 0;  // a stage is refilled one tile after it was read, unless it is the only one
    const int most_visible = task.visible_keys<Config::kCausal>(place.first_row + kWarpRows - 1);  // the warp's last row's
    Scores scores;
    int stage = 0;
    for (int i = 0; i < ring.tiles; ++i) {
      const bool seen = !Config::kCausal || ring.first_key(i) < most_visible;
      if (i > 0) {
        cp_async_wait<kFilled - 1 - kLag * kGroupsPerTile>();
        group_sync(place);
        if constexpr (kLag == 1) ring.fill(i - 1 + Config::kStages, (stage + Config::kStages - 1) % Config::kStages);
      }
      if (seen) {
        score(scores, stage);
        hide(scores, i);
        soften(partial, scores);
      }
      if constexpr (Config::kSplitWaits) {
        cp_async_wait<kFilled - 2>();
        group_sync(place);
      }
      if (seen) add(partial, scores, stage);
      if constexpr (kLag == 0) {
        group_sync(place);
        ring.fill(i + 1, 0);
      }
      stage = stage + 1 == Config::kStages ? 0 : stage + 1;
    }
    partial.finish();
  }

  /// Scores one tile ahead: the tensor cores work on the next tile while this one's weights are made.
  __device__ __forceinline__ void run_interleaved(Partial<kRowTiles, kDim>& partial) const {
    constexpr int kNext = Config::kSplitWaits ? 3 : 2;  // groups that must have come by the first round: the next keys are the last
    Scores scores;
    if (ring.tiles > 0) score(scores, 0);
    int stage = 0;
    for (int i = 0; i + 1 < ring.tiles; ++i) {
      const int next = stage + 1 == Config::kStages ? 0 : stage + 1;
      if constexpr (Config::kStages == 2) {
        if (i > 0) {
          group_sync(place);
          ring.fill(i + 1, next);
        }
        cp_async_wait<kFilled - kNext>();
      } else if (i > 0) {
        cp_async_wait<kFilled - kNext - kGroupsPerTile>();
      } else {
        cp_async_wait<kFilled - kNext>();
      }
      group_sync(place);
      if (Config::kStages > 2 && i > 0) {
        ring.fill(i - 1 + Config::kStages, (stage + Config::kStages - 1) % Config::kStages);
      }
      hide(scores, i);
      Scores ahead;
      score(ahead, next);
      soften(partial, scores);
      add(partial, scores, stage);
#pragma unroll
      for (int n = 0; n < kRowTiles * Config::kTileK / 2; ++n) (&scores[0][0][0])[n] = (&ahead[0][0][0])[n];
      stage = next;
    }
    if (ring.tiles > 0) {
      if constexpr (Config::kSplitWaits) {
        cp_async_wait<0>();
        group_sync(place);
      }
      hide(scores, ring.tiles - 1);
      soften(partial, scores);
      partial.finish();
      add(partial, scores, stage);
    }
  }
};

/// Lets a group that has a tile fewer meet as often as the others on the way. The kernel does not need it; racecheck does: of
/// warps that come to a barrier of the block after unequal numbers of named barriers it reports hazards across that barrier.
__device__ __forceinline__ void level(const Place& place, const Ring& ring) {
  if (Config::kKeySplits == 1 || ring.tiles == ring.share(place.source - place.split)) return;  // as many as the block's first
  constexpr int kSplit = Config::kSplitWaits ? 1 : 0, kRefill = Config::kStages == (Config::kInterleave ? 2 : 1) ? 1 : 0;
  // what one tile more costs in run() or run_interleaved()
  const int missing = Config::kInterleave
                          ? (ring.tiles == 0 ? kSplit : 1 + (ring.tiles > 1 ? kRefill : 0))
                          : (ring.tiles == 0 ? 0 : 1) + kSplit + kRefill;
  for (int i = 0; i < missing; ++i) group_sync(place);
}

}  // namespace evo

extern "C" __global__ void __launch_bounds__(evo::kThreads, evo::Config::kMinBlocks)
    attention_forward(const evo::Element* q, const evo::Element* k, const evo::Element* v, evo::Element* out, int batch, int heads,
                      int seq_q, int seq_kv, float scale) {
  using namespace evo;
  extern __shared__ __align__(128) unsigned char shared[];
  if constexpr (kInCluster && Config::kMergeApart) cluster_arrive_relaxed();
  const Place place;
  const int x = blockIdx.x / Config::kClusterSplits, tiles = (kTilesFirst ? gridDim.x / Config::kClusterSplits : gridDim.z);
  const int tile = kTilesFirst ? x : blockIdx.z, head = kTilesFirst ? blockIdx.y : x, entry = kTilesFirst ? blockIdx.z : blockIdx.y;
  const auto task = make_task<Config::kTileQ, kDim, Config::kCausal>(Config::kCausal ? tiles - 1 - tile : tile, entry * heads + head, q, k,
                                                                     v, out, seq_q, seq_kv);
  const unsigned smem = shared_address(shared);
  const Ring ring(task, smem + kQueryBytes + place.split * Ring::kBytes, place.source, place.in_group);
  WarpQueries queries(smem + place.first_row * Rows::kStrideBytes);
  if constexpr (kSource == QuerySource::kGlobal) {
    queries.fetch(task.q + place.first_row * kDim, task.queries - place.first_row, place.lane);
  } else {
    copy_rows_async<Rows, Config::kTileQ, kThreads>(smem, task.q, task.queries, threadIdx.x);
  }
  ring.fill_all();
  cp_async_wait<kFilled - 1>();
  if constexpr (Config::kQueries == Queries::kDirect) {
    group_sync(place);
  } else {
    __syncthreads();
  }
  queries.arrange(place.lane);

  const float factor = Exp::factor(scale);
  Partial<kRowTiles, kDim> partial;
  const Worker worker{task, place, ring, queries, factor};
  if constexpr (Config::kInterleave) {
    worker.run_interleaved(partial);
  } else {
    worker.run(partial);
  }
  if constexpr (kSources > 1) {
    level(place, ring);
    // in room of its own the blocks of a cluster need not wait for each other's rings, only to have started: see above
    if constexpr (kInCluster && !Config::kMergeApart) cluster_arrive();
    if constexpr (kInCluster) {
      cluster_wait();
    } else if constexpr (!Config::kMergeApart) {
      __syncthreads();
    }
    const Merge merge{smem + kMergeStart, place.rank};
    merge.send(partial, place.source, place.first_row, place.lane);
    merge.store<Numbers, Exp>(reinterpret_cast<const float*>(shared + kMergeStart), task.out, task.queries, threadIdx.x, factor);
  } else {
#pragma unroll
    for (int i = 0; i < 2 * kRowTiles; ++i) {
      const int row = place.first_row + 8 * i + place.lane / 4;
      store_row<Numbers, kDim, true>(task.out + row * kDim, partial.output[i / 2], i % 2, rcp_approx(partial.sum[i / 2][i % 2]),
                                                   row < task.queries, place.lane);
    }
  }
}
