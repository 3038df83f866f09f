// A plain, right attention with hooks: one block per query row (grid seq_q, heads, batch), kThreads threads. A tile's
// scores go through shared memory; then each thread owns one column of the output. A mutant hides one of Plain's
// functions by a wrong one.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "evo_config.cuh"

using evo::Config;
using evo::Dtype;

template <bool kIs, class A, class B> struct Pick { using Type = A; };
template <class A, class B> struct Pick<false, A, B> { using Type = B; };

constexpr int kDim = Config::kHeadDim;
constexpr bool kCausal = Config::kCausal;
constexpr int kThreads = 128;
constexpr int kTile = kThreads;  // keys
constexpr bool kHalf = Config::kDtype == Dtype::kFloat16;
using Narrow = Pick<kHalf, __half, __nv_bfloat16>::Type;
using Element = Pick<Config::kDtype == Dtype::kFloat32, float, Narrow>::Type;

static_assert(kDim <= kThreads, "columns_fit_the_block");

struct Problem {
  Element *q, *k, *v, *out;  // kernels are promised const inputs; a cheat may not care
  int batch, heads, seq_q, seq_kv;
  float scale;
};

struct Plain {
  __device__ static int rows(const Problem& p) { return p.seq_q; }
  __device__ static int keys(const Problem& p) { return p.seq_kv; }
  __device__ static bool visible(const Problem&, int row, int key) { return !kCausal || key <= row; }
  __device__ static long key_offset(const Problem& p, int head) { return long(head) * p.seq_kv * kDim; }
  __device__ static float score(const Problem& p, float product) { return product * p.scale; }
  __device__ static float weight(float distance) { return expf(distance); }
  __device__ static float maximum(float old, float score) { return fmaxf(old, score); }
  __device__ static float rescale_out(float factor) { return factor; }
  __device__ static float rescale_sum(float factor) { return factor; }
  __device__ static float accumulate(float sum, float weight, float value) { return sum + weight * value; }
  __device__ static float finish(float sum, float total) { return sum / total; }
  __device__ static void wait() { __syncthreads(); }  // until the tile's scores are written
};

__device__ inline float infinity() { return __int_as_float(0x7f800000); }
__device__ inline int block_row() { return blockIdx.x; }
__device__ inline int block_head(const Problem& p) { return blockIdx.z * p.heads + blockIdx.y; }
__device__ inline long outputs(const Problem& p) { return long(p.batch) * p.heads * p.seq_q * kDim; }
// Whether this is the one thread that owns the first element of that row.
__device__ inline bool owns(const Problem& p, int head, int row) {
  return block_head(p) == head && block_row() == row && threadIdx.x == 0;
}
__device__ inline bool owns_end(const Problem& p) { return owns(p, p.batch * p.heads - 1, p.seq_q - 1); }

// This thread's column of one row, the block's own unless said.
template <class Trick>
__device__ float attend_column(const Problem& p, int row = block_row()) {
  __shared__ float scores[kTile];
  const int thread = threadIdx.x, column = thread < kDim ? thread : 0;
  const int head = block_head(p), keys = Trick::keys(p);
  const Element* q = p.q + (long(head) * p.seq_q + row) * kDim;
  const Element* k = p.k + Trick::key_offset(p, head);
  const Element* v = p.v + Trick::key_offset(p, head);
  float top = -infinity(), total = 0, sum = 0;
  for (int first = 0; first < keys; first += kTile) {
    const int count = min(kTile, keys - first);
    float product = 0;
    if (thread < count)
      for (int d = 0; d < kDim; ++d) product += float(q[d]) * float(k[long(first + thread) * kDim + d]);
    __syncthreads();  // all have read the last tile's scores
    scores[thread] =
        thread < count && Trick::visible(p, row, first + thread) ? Trick::score(p, product) : -infinity();
    Trick::wait();
    float raised = top;
    for (int j = 0; j < count; ++j) raised = Trick::maximum(raised, scores[j]);
    const float factor = top == raised ? 1.0f : Trick::weight(top - raised);
    total *= Trick::rescale_sum(factor);
    sum *= Trick::rescale_out(factor);
    for (int j = 0; j < count; ++j) {
      const float weight = scores[j] == -infinity() ? 0.0f : Trick::weight(scores[j] - raised);
      total += weight;
      sum = Trick::accumulate(sum, weight, float(v[long(first + j) * kDim + column]));
    }
    top = raised;
  }
  return Trick::finish(sum, total);
}

__device__ inline void put(const Problem& p, float value) {
  if (threadIdx.x < kDim) p.out[(long(block_head(p)) * p.seq_q + block_row()) * kDim + threadIdx.x] = Element(value);
}

template <class Trick>
__device__ void attend(const Problem& p) {
  const float value = attend_column<Trick>(p);
  if (block_row() < Trick::rows(p)) put(p, value);
}

// Defines the entry with the body that follows, in which `p` is the problem.
#define ENTRY                                                                                                      \
  __device__ static void body(const Problem& p);                                                                   \
  extern "C" __global__ void attention_forward(Element* q, Element* k, Element* v, Element* out, int batch,        \
                                               int heads, int seq_q, int seq_kv, float scale) {                    \
    body({q, k, v, out, batch, heads, seq_q, seq_kv, scale});                                                      \
  }                                                                                                                \
  __device__ static void body(const Problem& p)
