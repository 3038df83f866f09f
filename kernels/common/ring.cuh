// A ring of stages in shared memory that a group of warps keeps filled for itself by cp.async.
#pragma once

#include "common/task.cuh"
#include "common/tile.cuh"

namespace evo {

/// The ring of one of `kSources` groups that share the keys out: its tiles are number `source`, `source + kSources`, ... of them.
///
/// A stage holds kTileK keys, their values behind them. Copies count as groups of cp.async, one for a tile or (kApart) one for
/// its keys and one for its values; a tile that does not exist is an empty group, so that the count of groups stays known.
template <class Element, class Rows, int kTileK, int kStages, int kThreads, int kSources, bool kApart>
struct GroupRing {
  static constexpr int kDim = 8 * Rows::kChunks;
  static constexpr int kTileBytes = kTileK * Rows::kStrideBytes;
  static constexpr int kBytes = 2 * kStages * kTileBytes;
  static constexpr int kGroupsPerTile = kApart ? 2 : 1;

  const Task<Element>& task;
  unsigned smem;
  int source;
  int thread;  // in the group
  int tiles;

  __device__ __forceinline__ GroupRing(const Task<Element>& task, unsigned smem, int source, int thread)
      : task(task), smem(smem), source(source), thread(thread), tiles(share(source)) {}

  /// How many tiles of the keys fall to a source.
  __device__ __forceinline__ int share(int source) const { return ((task.keys + kTileK - 1) / kTileK - source + kSources - 1) / kSources; }

  __device__ __forceinline__ int first_key(int i) const { return (source + i * kSources) * kTileK; }
  __device__ __forceinline__ unsigned keys_smem(int stage) const { return smem + 2 * stage * kTileBytes; }
  __device__ __forceinline__ unsigned values_smem(int stage) const { return keys_smem(stage) + kTileBytes; }

  /// Starts the copies of tile `i`, if there is one, to a stage that is read no more.
  __device__ __forceinline__ void fill(int i, int stage) const {
    const int first = first_key(i);
    if (i < tiles) copy_rows_async<Rows, kTileK, kThreads>(keys_smem(stage), task.k + first * kDim, task.keys - first, thread);
    if constexpr (kApart) cp_async_commit();
    if (i < tiles) copy_rows_async<Rows, kTileK, kThreads>(values_smem(stage), task.v + first * kDim, task.keys - first, thread);
    cp_async_commit();
  }

  /// Starts the copies of the first tiles, one to each stage.
  __device__ __forceinline__ void fill_all() const {
#pragma unroll
    for (int i = 0; i < kStages; ++i) fill(i, i);
  }
};

}  // namespace evo
