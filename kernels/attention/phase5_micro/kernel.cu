// Attention, phase 5: the shortest way from launch to result.
//
// New against phase 4: small problems end with the multiprocessors mostly waiting, so everything here shortens the
// chain of waits. No warp has a role: each group of row warps copies its own keys, all stages at once, and starts on
// the first while the later ones arrive. The keys are shared out twice: among groups of warps of a block (key_splits)
// and, on sm_90, among the blocks of a cluster (cluster_splits), whose shares meet in distributed shared memory. A warp
// may own several row tiles, so that one key fragment read from shared memory serves 16, 32 or 64 queries.
//
//   grid     (cluster_splits x query tiles, heads, batch), clusters of cluster_splits blocks; causal: most keys first
//   block    key_splits groups of tile_q / (16 row_tiles) row warps
//   source   a group of a block of a cluster: takes every (key_splits x cluster_splits)th tile of tile_k keys
//   shared   queries (unless direct) | a ring of stages x (keys, values) for each group | merge
//   merge    for every source, this block's rows of fp32 partial output, each followed by its maximum and sum; a block
//            of a cluster adds up tile_q / cluster_splits rows. In its own room (merge_apart) or over the ring.
//
//   group    copy all stages -> for each tile: wait K -> scores -> softmax -> (wait V) -> output -> refill the ring
//   merge    one barrier (two over the ring): each warp sends its rows to the block that owns them, then all add up
//
// Needs: q, k, v, out contiguous [batch, heads, length, head_dim], 16-byte aligned; seq_kv >= 1; scale > 0. Lengths need
// not divide by anything: missing rows are copied as zeros, missing keys masked, missing queries not stored.
// Causal: key j is visible to query i where j <= i; tiles that no row of a block sees are not copied, blocks of keys
// that no row of a warp sees are not computed.
#include "evo_config.cuh"

#include "common/element.cuh"
#include "common/ptx.cuh"
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

static_assert(kDim == 64 || kDim == 128, "head_dim");
static_assert(Config::kDtype != Dtype::kFloat32, "dtype");
static_assert(Config::kTileQ % kWarpRows == 0, "warp_owns_whole_tiles");
static_assert(Config::kTileK % Config::kKeyBlock == 0, "tile_is_whole_key_blocks");
static_assert(!Config::kInterleave || Config::kTileK > Config::kKeyBlock, "interleave_needs_blocks");
static_assert(Config::kTileQ % (8 * Config::kClusterSplits) == 0, "blocks_own_whole_rows");
static_assert(Config::kClusterSplits == 1 || architecture() >= 90, "clusters_need_sm_90");
static_assert(!Config::kMergeApart || kSources > 1, "merge_apart_needs_sources");
static_assert(Config::kWideStore || kSources == 1, "merged_rows_are_stored_wide");
static_assert(Config::kLiveRegisters + 48 <= registers_per_thread(kThreads * Config::kMinBlocks), "fits_registers");
static_assert(Config::kMinBlocks == 1 || Config::kLiveRegisters + 80 > registers_per_thread(kThreads * Config::kMinBlocks),
              "min_blocks_binds");
static_assert(Config::kThreads == kThreads || Config::kTileQ < kWarpRows, "threads_match");

using Numbers = Number<Config::kDtype == Dtype::kBfloat16>;
using Element = Numbers::Element;
using Rows = SharedRows<kDim, Config::kSwizzle == Swizzle::kPad, Config::kSwizzle == Swizzle::kXor>;
using Exp = Exponential<Config::kFastExp>;
using Scores = float[kRowTiles][Config::kKeyBlock / 8][4];

// Shared memory, in bytes from its start.
constexpr int kTileBytes = Config::kTileK * Rows::kStrideBytes;
constexpr int kQueryBytes = Config::kQueries == Queries::kDirect ? 0 : Config::kTileQ * Rows::kStrideBytes;
constexpr int kGroupBytes = 2 * Config::kStages * kTileBytes;
constexpr int kRingBytes = kQueryBytes + Config::kKeySplits * kGroupBytes;
constexpr int kMergeStart = Config::kMergeApart ? kRingBytes : 0;
constexpr int kMergeStride = kDim + 8;  // floats: a row of output, its maximum, its sum; 8 keeps quads on banks of their own
constexpr int kMergeBytes = kSources == 1 ? 0 : 4 * kSources * kOwnedRows * kMergeStride;
constexpr int kSharedBytes = kMergeStart + kMergeBytes > kRingBytes ? kMergeStart + kMergeBytes : kRingBytes;
static_assert(Config::kSharedBytes == kSharedBytes, "shared_bytes_match");
static_assert(kSharedBytes <= shared_bytes_per_block(), "fits_shared");

/// Where a thread stands.
struct Place {
  int lane = threadIdx.x % 32;
  int split = threadIdx.x / kGroupThreads;
  int in_group = threadIdx.x % kGroupThreads;
  int first_row = in_group / 32 * kWarpRows;  // of this warp, in the block's tile
  int rank = blockIdx.x % Config::kClusterSplits;
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

/// The ring of one group: its tiles are `first`, `first + kSources`, ... of the keys.
struct Ring {
  unsigned smem;
  int tiles;  // in all

  __device__ __forceinline__ Ring(const Task<Element>& task, const Place& place, unsigned smem_start)
      : smem(smem_start + kQueryBytes + place.split * kGroupBytes),
        tiles(((task.keys + Config::kTileK - 1) / Config::kTileK - place.source + kSources - 1) / kSources) {}

  /// Starts the copies of tile `i`, if there is one. Keys and values are two groups of copies where they are waited for apart.
  __device__ __forceinline__ void fill(const Task<Element>& task, const Place& place, int i, int stage) const {
    const unsigned keys_smem = smem + 2 * stage * kTileBytes;
    const int first_key = (place.source + i * kSources) * Config::kTileK;
    const size_t skipped = static_cast<size_t>(first_key) * kDim;
    if (i < tiles) {
      copy_rows_async<Rows, Config::kTileK, kGroupThreads>(keys_smem, task.k + skipped, task.keys - first_key, place.in_group);
    }
    if constexpr (Config::kSplitWaits) cp_async_commit();
    if (i < tiles) {
      copy_rows_async<Rows, Config::kTileK, kGroupThreads>(keys_smem + kTileBytes, task.v + skipped, task.keys - first_key,
                                                           place.in_group);
    }
    cp_async_commit();  // empty groups keep the count of groups known
  }
};

constexpr int kGroupsPerTile = Config::kSplitWaits ? 2 : 1;

/// A warp's queries: fragments in registers, or the address from which to read them for each block of keys.
struct WarpQueries {
  unsigned fragments[kRowTiles][kDim / 16][4];
  uint4 rows[kRowTiles][2][kDim / 32];  // direct: lane 4g+t has chunks t, 4+t, ... of row g or g+8
  unsigned smem;

  __device__ __forceinline__ void fetch(const Task<Element>& task, const Place& place, unsigned smem_start) {
    smem = smem_start + place.first_row * Rows::kStrideBytes;
    if constexpr (Config::kQueries == Queries::kDirect) {
#pragma unroll
      for (int i = 0; i < 2 * kRowTiles; ++i) {
        const int row = place.first_row + 8 * i + place.lane / 4;
        const uint4* from = reinterpret_cast<const uint4*>(task.q + row * kDim) + place.lane % 4;
#pragma unroll
        for (int n = 0; n < kDim / 32; ++n) rows[i / 2][i % 2][n] = row < task.queries ? __ldg(from + 4 * n) : uint4{};
      }
    } else {
      copy_rows_async<Rows, Config::kTileQ, kThreads>(smem_start, task.q, task.queries, threadIdx.x);
    }
  }

  __device__ __forceinline__ void arrange(int lane) {
    if constexpr (Config::kQueries == Queries::kDirect) {
#pragma unroll
      for (int i = 0; i < 2 * kRowTiles; ++i) {
#pragma unroll
        for (int n = 0; n < kDim / 32; ++n) {
          const uint4 row = rows[i / 2][i % 2][n];
          unsigned words[4] = {row.x, row.y, row.z, row.w};
          transpose_quad(words, lane);
#pragma unroll
          for (int chunk = 0; chunk < 4; ++chunk) fragments[i / 2][2 * n + chunk / 2][chunk % 2 * 2 + i % 2] = words[chunk];
        }
      }
    } else if constexpr (Config::kQueries == Queries::kRegisters) {
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) load_rows<Rows>(fragments[i], smem + i * 16 * Rows::kStrideBytes, lane);
    }
  }

  /// Scores against one block of keys.
  __device__ __forceinline__ void score(Scores& scores, unsigned keys_smem, int lane) const {
#pragma unroll
    for (int i = 0; i < kRowTiles * Config::kKeyBlock / 2; ++i) (&scores[0][0][0])[i] = 0.0f;
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      unsigned step[kRowTiles][4];
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) {
        if constexpr (Config::kQueries == Queries::kShared) {
          ldmatrix_x4(step[i], smem + i * 16 * Rows::kStrideBytes + LaneRows<Rows>::offset_a(lane, 2 * k));
        } else {
#pragma unroll
          for (int word = 0; word < 4; ++word) step[i][word] = fragments[i][k][word];
        }
      }
      add_scores<Numbers, Rows, Config::kKeyBlock, kRowTiles>(scores, step, keys_smem, k, lane);
    }
  }
};

/// A warp's rows against one tile of keys, a block at a time; `values_ready` is called before the first values are read.
template <class Ready>
__device__ __forceinline__ void attend(Partial<kRowTiles, kDim>& partial, const WarpQueries& queries, const Task<Element>& task,
                                       const Place& place, unsigned keys_smem, int first_key, bool fresh, float factor, Ready values_ready) {
  constexpr int kBlocks = Config::kTileK / Config::kKeyBlock;
  constexpr int kBlockBytes = Config::kKeyBlock * Rows::kStrideBytes;
  const int least_visible = task.visible_keys<Config::kCausal>(place.first_row) - first_key;
  const int most_visible = task.visible_keys<Config::kCausal>(place.first_row + kWarpRows - 1) - first_key;
  Scores scores[Config::kInterleave ? 2 : 1];
  if (Config::kInterleave && 0 < most_visible) queries.score(scores[0], keys_smem, place.lane);
#pragma unroll
  for (int block = 0; block < kBlocks; ++block) {
    const int key = block * Config::kKeyBlock;
    Scores& now = scores[Config::kInterleave ? block % 2 : 0];
    if constexpr (Config::kInterleave) {  // the tensor cores work on the next block while this one is softened
      Scores& next = scores[(block + 1) % 2];
      if (block + 1 < kBlocks && key + Config::kKeyBlock < most_visible) {
        queries.score(next, keys_smem + (block + 1) * kBlockBytes, place.lane);
      }
    } else if (key < most_visible) {
      queries.score(now, keys_smem + block * kBlockBytes, place.lane);
    }
    if (key < most_visible) {
      if (key + Config::kKeyBlock > least_visible) {
        int visible[kRowTiles][2];
#pragma unroll
        for (int i = 0; i < 2 * kRowTiles; ++i) {
          visible[i / 2][i % 2] = task.visible_keys<Config::kCausal>(place.first_row + 8 * i + place.lane / 4) - first_key - key;
        }
        hide_keys(now, visible, place.lane);
      }
      partial.soften<Exp, Config::kLazyRescale>(now, factor, fresh && block == 0);
    }
    if (block == 0) values_ready();
    if (key < most_visible) {
      add_values<Numbers, Rows, Config::kKeyBlock, kRowTiles>(partial.output, now, keys_smem + kTileBytes + block * kBlockBytes, place.lane);
    }
  }
}

/// Sends this warp's rows to the blocks that own them; then adds up and stores the rows that this block owns.
__device__ __forceinline__ void merge(const Partial<kRowTiles, kDim>& partial, const Task<Element>& task, const Place& place,
                                      unsigned char* shared, float factor) {
  const unsigned merge_smem = shared_address(shared + kMergeStart);
  if constexpr (kInCluster) {
    if constexpr (!Config::kMergeApart) cluster_arrive_relaxed();  // else: arrived when the block started
    cluster_wait();
  } else if constexpr (!Config::kMergeApart) {
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 2 * kRowTiles; ++i) {
    const int row = place.first_row + 8 * i;
    const int slot = place.source * kOwnedRows + row % kOwnedRows + place.lane / 4;
    unsigned to = merge_smem + slot * kMergeStride * 4;
    if constexpr (kInCluster) to = cluster_address(to, row / kOwnedRows);
#pragma unroll
    for (int n = 0; n <= kDim / 8; ++n) {  // the last is the maximum and the sum
      const float x = n < kDim / 8 ? partial.output[i / 2][n % (kDim / 8)][2 * (i % 2)] : partial.maximum[i / 2][i % 2];
      const float y = n < kDim / 8 ? partial.output[i / 2][n % (kDim / 8)][2 * (i % 2) + 1] : partial.sum[i / 2][i % 2];
      if (n == kDim / 8 && place.lane % 4 != 0) break;
      const unsigned pair = to + n * 32 + place.lane % 4 * 8;
      kInCluster ? cluster_store(pair, x, y) : shared_store(pair, x, y);
    }
  }
  if constexpr (kInCluster) {
    cluster_arrive();
    cluster_wait();
  } else {
    __syncthreads();
  }
  const float* const parts = reinterpret_cast<const float*>(shared + kMergeStart);
#pragma unroll 2
  for (int item = threadIdx.x; item < kOwnedRows * kDim / 4; item += kThreads) {
    const float* const part = parts + item / (kDim / 4) * kMergeStride;
    float maximum[kSources], top = kLowest, total = 0.0f, output[4] = {};
#pragma unroll
    for (int s = 0; s < kSources; ++s) {
      maximum[s] = part[s * kOwnedRows * kMergeStride + kDim];
      top = fmaxf(top, maximum[s]);
    }
#pragma unroll
    for (int s = 0; s < kSources; ++s) {
      const float* const from = part + s * kOwnedRows * kMergeStride;
      const float4 four = *reinterpret_cast<const float4*>(from + item % (kDim / 4) * 4);
      const float share = Exp::rescale(maximum[s], top, factor);
      total += share * from[kDim + 1];
      output[0] += share * four.x, output[1] += share * four.y, output[2] += share * four.z, output[3] += share * four.w;
    }
    const float inverse = 1.0f / total;
    const int row = place.rank * kOwnedRows + item / (kDim / 4);
    const uint2 words = {Numbers::pack(output[0] * inverse, output[1] * inverse), Numbers::pack(output[2] * inverse, output[3] * inverse)};
    if (row < task.queries) *reinterpret_cast<uint2*>(task.out + row * kDim + item % (kDim / 4) * 4) = words;
  }
}

}  // namespace evo

extern "C" __global__ void __launch_bounds__(evo::kThreads, evo::Config::kMinBlocks)
    attention_forward(const evo::Element* q, const evo::Element* k, const evo::Element* v, evo::Element* out, int batch, int heads,
                      int seq_q, int seq_kv, float scale) {
  using namespace evo;
  extern __shared__ __align__(128) unsigned char shared[];
  if constexpr (kInCluster && Config::kMergeApart) cluster_arrive_relaxed();
  const Place place;
  const int tiles = gridDim.x / Config::kClusterSplits, tile = blockIdx.x / Config::kClusterSplits;
  const auto task = make_task<Config::kTileQ, kDim, Config::kCausal>(Config::kCausal ? tiles - 1 - tile : tile, q, k, v, out, heads,
                                                                     seq_q, seq_kv);
  const unsigned smem = shared_address(shared);
  const Ring ring(task, place, smem);
  WarpQueries queries;
  queries.fetch(task, place, smem);
#pragma unroll
  for (int i = 0; i < Config::kStages; ++i) ring.fill(task, place, i, i);

  constexpr int kFilled = kGroupsPerTile * Config::kStages;  // groups of copies after the prologue
  constexpr int kLag = Config::kStages > 1 ? 1 : 0;          // a stage is refilled one tile after it was read, unless it is the only one
  cp_async_wait<kFilled - 1>();
  if constexpr (Config::kQueries == Queries::kDirect) {
    group_sync(place);
  } else {
    __syncthreads();
  }
  queries.arrange(place.lane);

  const float factor = Exp::factor(scale);
  Partial<kRowTiles, kDim> partial;
  int stage = 0;
  for (int i = 0; i < ring.tiles; ++i) {
    if (i > 0) {
      cp_async_wait<kFilled - 1 - kLag * kGroupsPerTile>();
      group_sync(place);
      if constexpr (kLag == 1) ring.fill(task, place, i - 1 + Config::kStages, (stage + Config::kStages - 1) % Config::kStages);
    }
    attend(partial, queries, task, place, ring.smem + 2 * stage * kTileBytes, (place.source + i * kSources) * Config::kTileK, i == 0,
           factor, [&] {
             if constexpr (Config::kSplitWaits) {
               cp_async_wait<kFilled - 2>();
               group_sync(place);
             }
           });
    if constexpr (kLag == 0) {
      group_sync(place);
      ring.fill(task, place, i + 1, 0);
    }
    stage = stage + 1 == Config::kStages ? 0 : stage + 1;
  }
  partial.finish();
  if constexpr (kSources > 1) {
    merge(partial, task, place, shared, factor);
  } else {
#pragma unroll
    for (int i = 0; i < 2 * kRowTiles; ++i) {
      const int row = place.first_row + 8 * i + place.lane / 4;
      store_row<Numbers, kDim, Config::kWideStore>(task.out + row * kDim, partial.output[i / 2], i % 2, 1.0f / partial.sum[i / 2][i % 2],
                                                   row < task.queries, place.lane);
    }
  }
}
