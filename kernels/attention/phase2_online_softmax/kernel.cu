// Attention, phase 2: online softmax in registers.
//
// New against phase 1: no tile of scores in shared memory and no softmax pass over it. mma.m16n8k16 says which lane holds
// which element, so a warp keeps its rows to itself: the accumulators of the first product are masked, get their running
// maximum from two shuffles in the quad of lanes that shares a row, become weights where they stand and are the left
// factor of the second product, register for register. The output stays in accumulators too and is rescaled in place
// (common/row_warp.cuh). Two barriers of a tile are left of four, and no shared memory but the inputs'.
// Source: Dao, FlashAttention-2 (2023), algorithm 1.
//
//   grid     (query tiles, heads, batch)
//   warp     16 or 32 query rows and all the keys; warps share nothing but the copying
//   shared   queries | keys | values
//
//   tile     load keys, values | scores -> maximum, weights, sum -> output, all in registers |
//                              ^ barrier                                                     ^ barrier
//
// Needs: q, k, v, out contiguous [batch, heads, length, head_dim], 16-byte aligned; seq_kv >= 1; scale > 0. Lengths need
// not divide by anything: missing rows are read as zeros, missing keys masked, missing queries not stored.
// Causal: key j is visible to query i where j <= i; a warp skips tiles that none of its rows sees.
#include "evo_config.cuh"

#include "common/element.cuh"
#include "common/load.cuh"
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
constexpr int kKeysStart = Config::kTileQ * Rows::kStrideBytes;
constexpr int kValuesStart = kKeysStart + Config::kTileK * Rows::kStrideBytes;
constexpr int kSharedBytes = kValuesStart + Config::kTileK * Rows::kStrideBytes;
static_assert(Config::kSharedBytes == kSharedBytes, "shared_bytes_match");
static_assert(kSharedBytes <= shared_bytes_per_block(), "fits_shared");

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

  copy_rows<Rows, Config::kTileQ, kThreads>(shared, task.q, task.queries, threadIdx.x);
  for (int first_key = 0; first_key < task.keys; first_key += Config::kTileK) {
    const size_t skipped = static_cast<size_t>(first_key) * kDim;
    const int valid = task.keys - first_key;
    __syncthreads();  // the tile before is read no more
    copy_rows<Rows, Config::kTileK, kThreads>(shared + kKeysStart, task.k + skipped, valid, threadIdx.x);
    copy_rows<Rows, Config::kTileK, kThreads>(shared + kValuesStart, task.v + skipped, valid, threadIdx.x);
    __syncthreads();  // the tile is there
    warp.attend(task, first_key, smem + kKeysStart, smem + kValuesStart, factor);
  }
  warp.store(task);
}
