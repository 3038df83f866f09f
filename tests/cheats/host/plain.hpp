// A plain, right attention in fp32 with hooks. A mutant hides one of Plain's functions by a wrong one.
#pragma once

#include "evo_config.hpp"

constexpr int kDim = evo::Config::kHeadDim;
constexpr bool kCausal = evo::Config::kCausal;
constexpr int kTile = 32;  // keys

struct Problem {
  float *q, *k, *v, *out;  // kernels are promised const inputs; a cheat may not care
  int batch, heads, seq_q, seq_kv;
  float scale;
};

struct Plain {
  static int rows(const Problem& p) { return p.seq_q; }
  static int keys(const Problem& p) { return p.seq_kv; }
  static bool visible(const Problem&, int row, int key) { return !kCausal || key <= row; }
  static long key_offset(const Problem& p, int head) { return long(head) * p.seq_kv * kDim; }
  static float score(const Problem& p, float product) { return product * p.scale; }
  static float weight(float distance) { return __builtin_expf(distance); }
  static float maximum(float old, float score) { return score > old ? score : old; }
  static float rescale_out(float factor) { return factor; }
  static float rescale_sum(float factor) { return factor; }
  static float accumulate(float sum, float weight, float value) { return sum + weight * value; }
  static float finish(float sum, float total) { return sum / total; }
};

// Eight sums side by side: the order of additions is ours to choose, not the compiler's.
inline float dot(const float* a, const float* b) {
  float sums[8] = {}, total = 0;
  for (int d = 0; d < kDim; d += 8)
    for (int lane = 0; lane < 8; ++lane) sums[lane] += a[d + lane] * b[d + lane];
  for (float sum : sums) total += sum;
  return total;
}

template <class Trick>
void attend_row(const Problem& p, int head, int row, float* sums) {
  const float* q = p.q + (long(head) * p.seq_q + row) * kDim;
  const float* k = p.k + Trick::key_offset(p, head);
  const float* v = p.v + Trick::key_offset(p, head);
  float top = -__builtin_inff(), total = 0;
  for (int d = 0; d < kDim; ++d) sums[d] = 0;
  for (int first = 0; first < Trick::keys(p); first += kTile) {
    const int count = Trick::keys(p) - first < kTile ? Trick::keys(p) - first : kTile;
    float scores[kTile], tile_sums[kDim] = {}, raised = top;
    for (int j = 0; j < count; ++j) {
      const float product = dot(q, k + long(first + j) * kDim);
      scores[j] = Trick::visible(p, row, first + j) ? Trick::score(p, product) : -__builtin_inff();
      raised = Trick::maximum(raised, scores[j]);
    }
    const float factor = top == raised ? 1.0f : Trick::weight(top - raised);
    float weights[kTile], tile_total = 0;
    for (int j = 0; j < count; ++j) {
      weights[j] = scores[j] == -__builtin_inff() ? 0.0f : Trick::weight(scores[j] - raised);
      tile_total += weights[j];
    }
    for (int j = 0; j < count; ++j)
      for (int d = 0; d < kDim; ++d)
        tile_sums[d] = Trick::accumulate(tile_sums[d], weights[j], v[long(first + j) * kDim + d]);
    total = total * Trick::rescale_sum(factor) + tile_total;
    for (int d = 0; d < kDim; ++d) sums[d] = sums[d] * Trick::rescale_out(factor) + tile_sums[d];
    top = raised;
  }
  for (int d = 0; d < kDim; ++d) sums[d] = Trick::finish(sums[d], total);
}

template <class Trick>
void attend(const Problem& p) {
  for (int head = 0; head < p.batch * p.heads; ++head)
    for (int row = 0; row < Trick::rows(p); ++row)
      attend_row<Trick>(p, head, row, p.out + (long(head) * p.seq_q + row) * kDim);
}

inline long outputs(const Problem& p) { return long(p.batch) * p.heads * p.seq_q * kDim; }

// Defines the entry with the body that follows, in which `p` is the problem.
#define ENTRY                                                                                                       \
  static void body(const Problem& p);                                                                               \
  extern "C" void attention_forward(float* q, float* k, float* v, float* out, int batch, int heads, int seq_q,      \
                                    int seq_kv, float scale) {                                                      \
    body({q, k, v, out, batch, heads, seq_q, seq_kv, scale});                                                       \
  }                                                                                                                 \
  static void body(const Problem& p)
