// Attention, phase 3: asynchronous copies.
//
// New against phase 2: nobody waits for a tile that has just been asked for. Keys and values go from global to shared
// memory by cp.async, past the registers, into a ring of stages: while the warps compute on one tile, the next stages - 1
// are on their way. All warps copy and all compute. One barrier per tile is left of two: the one that shows a tile to all
// also tells that the tile before is read no more, so its stage can be refilled right behind it.
//
//   grid     (query tiles, heads, batch)
//   warp     16 or 32 query rows and all the keys, as in phase 2 (common/row_warp.cuh)
//   shared   queries | stages of (keys, values)
//
//   stages 3   copy 0, 1 | wait 0  copy 2  compute 0 | wait 1  copy 3  compute 1 | wait 2  copy 4  compute 2 | ...
//                                ^ barrier                   ^ barrier                   ^ barrier
//   stages 1   nothing runs ahead: copy, wait, compute, a barrier before and after the copy
//
// Needs: q, k, v, out contiguous [batch, heads, length, head_dim], 16-byte aligned; seq_kv >= 1; scale > 0. Lengths need
// not divide by anything: missing rows are copied as zeros, missing keys masked, missing queries not stored.
// Causal: key j is visible to query i where j <= i; a warp skips tiles that none of its rows sees.
#include "evo_config.cuh"

#include "common/element.cuh"
#include "common/row_warp.cuh"

namespace evo {

constexpr int kDim = Config::kHeadDim;
constexpr int kThreads = 32 * Config::kRowWarps;
constexpr int kRowTiles = Config::kTileQ / (16 * Config::kRowWarps);

static_assert(kDim == 64 || kDim == 128, "head_dim");
static_assert(Config::kDtype != Dtype::kFloat32, "dtype");
static_assert(Config::kTileQ % (16 * Config::kRowWarps) == 0, "warp_owns_whole_row_tiles");
static_assert(Config::kTileQ <= 32 * Config::kRowWarps, "two_row_tiles_at_most");
static_assert(Config::kLiveRegisters + 48 <= registers_per_thread(kThreads), "fits_registers");
static_assert(Config::kThreads == kThreads, "threads_match");

using Numbers = Number<Config::kDtype == Dtype::kBfloat16>;
using Element = Numbers::Element;
using Rows = SharedRows<kDim, Config::kPad, false>;
using Exp = Exponential<Config::kFastExp>;
using Warp = RowWarp<Numbers, Rows, Exp, kRowTiles, Config::kTileK, Config::kCausal, Config::kQueriesInRegisters>;

// Shared memory, in bytes from its start.
constexpr int kTileBytes = Config::kTileK * Rows::kStrideBytes;
constexpr int kRingStart = Config::kTileQ * Rows::kStrideBytes;
constexpr int kSharedBytes = kRingStart + 2 * Config::kStages * kTileBytes;
static_assert(Config::kSharedBytes == kSharedBytes, "shared_bytes_match");
static_assert(kSharedBytes <= shared_bytes_per_block(), "fits_shared");

/// Where tile `tile` lies: its keys, with its values behind them.
__device__ __forceinline__ unsigned stage_of(unsigned smem, int tile) {
  return smem + kRingStart + tile % Config::kStages * 2 * kTileBytes;
}

/// Starts the copy of a tile as one group; behind the last tile an empty group, so that waits can count groups.
__device__ __forceinline__ void fill(const Task<Element>& task, unsigned smem, int tile) {
  const int first_key = tile * Config::kTileK;
  if (first_key < task.keys) {
    const size_t skipped = static_cast<size_t>(first_key) * kDim;
    const unsigned keys_smem = stage_of(smem, tile);
    copy_rows_async<Rows, Config::kTileK, kThreads>(keys_smem, task.k + skipped, task.keys - first_key, threadIdx.x);
    copy_rows_async<Rows, Config::kTileK, kThreads>(keys_smem + kTileBytes, task.v + skipped, task.keys - first_key, threadIdx.x);
  }
  cp_async_commit();
}

/// Makes `tile` readable for all threads and keeps the ring filled ahead of it.
__device__ __forceinline__ void advance(const Task<Element>& task, unsigned smem, int tile) {
  if constexpr (Config::kStages == 1) {
    __syncthreads();  // the tile before is read no more
    fill(task, smem, tile);
    cp_async_wait<0>();
    __syncthreads();  // all threads' copies are there
  } else {
    cp_async_wait<Config::kStages - 2>();  // this thread's copies of the tile are there,
    __syncthreads();                       // all threads' are, and the tile before is read no more
    fill(task, smem, tile + Config::kStages - 1);
  }
}

}  // namespace evo

extern "C" __global__ void __launch_bounds__(evo::kThreads)
    attention_forward(const evo::Element* q, const evo::Element* k, const evo::Element* v, evo::Element* out, int batch, int heads,
                      int seq_q, int seq_kv, float scale) {
  using namespace evo;
  extern __shared__ __align__(128) unsigned char shared[];
  const unsigned smem = shared_address(shared);
  const auto task = make_task<Config::kTileQ, kDim, Config::kCausal>(blockIdx.x, blockIdx.z * heads + blockIdx.y, q, k, v, out, seq_q, seq_kv);
  const float factor = Exp::factor(scale);
  Warp warp(smem);

  copy_rows_async<Rows, Config::kTileQ, kThreads>(smem, task.q, task.queries, threadIdx.x);  // in the first tile's group
#pragma unroll
  for (int tile = 0; tile < Config::kStages - 1; ++tile) fill(task, smem, tile);
  for (int tile = 0; tile * Config::kTileK < task.keys; ++tile) {
    advance(task, smem, tile);
    const unsigned keys_smem = stage_of(smem, tile);
    warp.attend(task, tile * Config::kTileK, keys_smem, keys_smem + kTileBytes, factor);
  }
  warp.store(task);
}
