// Pieces of the online softmax over accumulator fragments of mma.m16n8k16.
//
// A warp's tile of 16 rows gives each lane two rows, g and g + 8 (g = lane / 4); the four lanes of a quad share a row.
// While the keys go by, a row is described by its running maximum m, the sum of exp(score - m) and the unnormalised
// output. Source: Dao, FlashAttention-2 (2023), algorithm 1.
#pragma once

#include "common/ptx.cuh"

namespace evo {

/// Lower than any score, yet finite: (-inf) - kLowest is -inf, so a row that has seen no visible key needs no special case.
constexpr float kLowest = -1.0e30f;
constexpr float kLog2E = 1.4426950408889634f;

__device__ __forceinline__ float minus_infinity() { return __int_as_float(0xff800000); }

/// Maximum over the four lanes of a quad.
__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

/// Sum over the four lanes of a quad.
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/// exp(scale * (score - m)): by one multiply-add and ex2.approx, or by the library's expf.
template <bool kFast>
struct Exponential {
  /// What scores are multiplied with before the exponential: log2(e) is folded in where the base is 2.
  static __device__ __forceinline__ float factor(float scale) { return kFast ? scale * kLog2E : scale; }

  /// The weight of a score; `shift` is factor * m.
  static __device__ __forceinline__ float weight(float score, float factor, float shift) {
    if constexpr (kFast) {
      return ex2_approx(fmaf(score, factor, -shift));
    } else {
      return expf(fmaf(score, factor, -shift));
    }
  }

  /// What sums and outputs kept under `from` are multiplied with under the new maximum `to`.
  static __device__ __forceinline__ float rescale(float from, float to, float factor) {
    if constexpr (kFast) {
      return ex2_approx((from - to) * factor);
    } else {
      return expf((from - to) * factor);
    }
  }

  /// Growth of factor * m below which the old maximum may stay: weights then reach 256 at most.
  static __device__ __forceinline__ constexpr float slack() { return kFast ? 8.0f : 5.5f; }
};

}  // namespace evo
