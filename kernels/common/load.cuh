// Copying rows the plain way: through registers, and the thread waits.
#pragma once

#include "common/swizzle.cuh"

namespace evo {

/// Copies `kRows` rows from global to shared memory by `kThreads` threads, 16 bytes at a time; rows from `valid_rows` on
/// become zeros. A thread has up to four loads under way before it stores the first.
template <class Rows, int kRows, int kThreads, class Element>
__device__ __forceinline__ void copy_rows(unsigned char* to_smem, const Element* from_gmem, int valid_rows, int thread) {
  constexpr int kRowsPerStep = kThreads / Rows::kChunks;
  constexpr int kSteps = (kRows + kRowsPerStep - 1) / kRowsPerStep;
  constexpr int kBatch = kSteps < 4 ? kSteps : 4;
  static_assert(kThreads % Rows::kChunks == 0 && kSteps % kBatch == 0, "steps of whole rows, whole batches of steps");
  const int chunk = thread % Rows::kChunks;
  const int last_row = min(kRows, valid_rows);
#pragma unroll
  for (int batch = 0; batch < kSteps; batch += kBatch) {
    const int first_row = thread / Rows::kChunks + batch * kRowsPerStep;
    uint4 words[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int row = first_row + i * kRowsPerStep;
      words[i] = make_uint4(0, 0, 0, 0);
      if (row < last_row) words[i] = *reinterpret_cast<const uint4*>(from_gmem + static_cast<size_t>(row) * Rows::kChunks * 8 + chunk * 8);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int row = first_row + i * kRowsPerStep;
      if (row < kRows) *reinterpret_cast<uint4*>(to_smem + Rows::offset(row, chunk)) = words[i];
    }
  }
}

}  // namespace evo
