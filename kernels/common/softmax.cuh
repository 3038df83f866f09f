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

/// Hides the keys from `visible` on (a bound for each row of this lane, counted from the first key of the tile).
template <int kRowTiles, int kKeyTiles>
__device__ __forceinline__ void hide_keys(float (&scores)[kRowTiles][kKeyTiles][4], const int (&visible)[kRowTiles][2], int lane) {
#pragma unroll
  for (int tile = 0; tile < kRowTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < kKeyTiles * 4; ++i) {
      if (i / 4 * 8 + (i & 1) >= visible[tile][i / 2 % 2] - 2 * (lane % 4)) scores[tile][i / 4][i % 4] = minus_infinity();
    }
  }
}

/// A warp's share of the result; lane 4g+t has rows g and g + 8 of each of the warp's tiles.
template <int kRowTiles, int kDim>
struct Partial {
  float output[kRowTiles][kDim / 8][4];
  float maximum[kRowTiles][2];
  float sum[kRowTiles][2];  // over this lane's keys only, until finish()

  __device__ __forceinline__ Partial() : output{}, sum{} {
#pragma unroll
    for (int i = 0; i < 2 * kRowTiles; ++i) maximum[i / 2][i % 2] = kLowest;
  }

  /// Turns scores into weights under the new maxima and brings what has been summed under them.
  ///
  /// kLazy: the maxima stay while none in the warp has grown by more than the slack, and then nothing is rescaled. Else
  /// there is no branch, so that the compiler can mix this with the products before and after it.
  template <class Exp, bool kLazy, int kKeyTiles>
  __device__ __forceinline__ void soften(float (&scores)[kRowTiles][kKeyTiles][4], float factor) {
    float seen[kRowTiles][2];
    bool grown = !kLazy;
#pragma unroll
    for (int i = 0; i < 2 * kRowTiles; ++i) {
      const int tile = i / 2, half = i % 2;
      float top = scores[tile][0][2 * half];
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) top = fmaxf(top, fmaxf(scores[tile][n][2 * half], scores[tile][n][2 * half + 1]));
      seen[tile][half] = fmaxf(maximum[tile][half], quad_max(top));
      grown |= (seen[tile][half] - maximum[tile][half]) * factor > Exp::slack();
    }
    if (!kLazy || __any_sync(0xffffffffu, grown)) {
      rescale<Exp>(seen, factor);
#pragma unroll
      for (int i = 0; i < 2 * kRowTiles; ++i) maximum[i / 2][i % 2] = seen[i / 2][i % 2];
    }
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
      const float shift[2] = {maximum[tile][0] * factor, maximum[tile][1] * factor};
#pragma unroll
      for (int i = 0; i < kKeyTiles * 4; ++i) {
        float& score = scores[tile][i / 4][i % 4];
        score = Exp::weight(score, factor, shift[i / 2 % 2]);
        sum[tile][i / 2 % 2] += score;
      }
    }
  }

  /// Adds the sums of each quad's lanes up.
  __device__ __forceinline__ void finish() {
#pragma unroll
    for (int i = 0; i < 2 * kRowTiles; ++i) sum[i / 2][i % 2] = quad_sum(sum[i / 2][i % 2]);
  }

 private:
  template <class Exp>
  __device__ __forceinline__ void rescale(const float (&seen)[kRowTiles][2], float factor) {
#pragma unroll
    for (int i = 0; i < 2 * kRowTiles; ++i) {
      const int tile = i / 2, half = i % 2;
      const float shrink = Exp::rescale(maximum[tile][half], seen[tile][half], factor);
      sum[tile][half] *= shrink;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        output[tile][n][2 * half] *= shrink;
        output[tile][n][2 * half + 1] *= shrink;
      }
    }
  }
};

}  // namespace evo
