// The 16-bit element type of a kernel: its storage type, its tensor-core product, its rounding.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "common/ptx.cuh"

namespace evo {

/// fp16, or bf16 where `kBfloat16`.
template <bool kBfloat16>
struct Number {
  using Element = __half;
  static __device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    mma_m16n8k16_f16(d, a, b0, b1);
  }
  static __device__ __forceinline__ unsigned pack(float low, float high) { return pack_f16(low, high); }
};

template <>
struct Number<true> {
  using Element = __nv_bfloat16;
  static __device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    mma_m16n8k16_bf16(d, a, b0, b1);
  }
  static __device__ __forceinline__ unsigned pack(float low, float high) { return pack_bf16(low, high); }
};

}  // namespace evo
