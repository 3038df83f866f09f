// Attention forward on the CPU, fp32: out = softmax(q k^T * scale) v, layouts [batch, heads, seq, head_dim].
//
// The idea: online softmax over tiles. A query tile of kTileQ rows meets the keys tile by tile; scores of one pair of
// tiles live in a thread's scratch, and sums and outputs are rescaled when a row's maximum grows, so that no score ever
// reaches main memory (FlashAttention-2, algorithm 1).
//
// Who owns what: a work item is one query tile of one head; a thread that is done with one takes the next, and has a
// Scratch of its own. Both products run in register blocks of kRows query rows: scores by kKeyVectors vectors of keys (or
// kKeyVectors keys, when they are dotted row by row), outputs by kValueVectors vectors of head_dim.
//
// Needs: contiguous inputs, seq_kv >= 1. Tails are handled: rows and keys beyond the end are never read or written.
#include "evo_config.hpp"
#include "pool.hpp"
#include "vector.hpp"

namespace evo {
namespace {

constexpr int kTileQ = Config::kTileQ;
constexpr int kTileK = Config::kTileK;
constexpr int kDim = Config::kHeadDim;
constexpr int kRows = Config::kRows;
constexpr int kKeyVectors = Config::kKeyVectors;
constexpr int kValueVectors = Config::kValueVectors;
constexpr bool kPacked = Config::kKeyLayout != KeyLayout::kRows;
constexpr bool kPackHead = Config::kKeyLayout == KeyLayout::kHead;
constexpr int kBlockKeys = kPacked ? kKeyVectors * kLanes : kKeyVectors;  // keys of one register block of scores
constexpr int kBlockDims = kValueVectors * kLanes;                        // output columns of one register block
constexpr float kMinusInfinity = -__builtin_inff();

static_assert(Config::kDtype == Dtype::kFloat32, "is_float32");
static_assert(kTileQ % kRows == 0, "rows_divide_tile_q");
static_assert(kTileK % (kKeyVectors * kLanes) == 0, "key_vectors_divide_tile_k");
static_assert(kDim % kBlockDims == 0, "value_vectors_divide_head_dim");
static_assert(kRows * (kKeyVectors > kValueVectors ? kKeyVectors : kValueVectors) <= 24, "accumulators_stay_near");
static_assert(Config::kThreads <= Config::kCores, "threads_within_cores");

struct Problem {
  const float *q, *k, *v;
  float* out;
  int heads, seq_q, seq_kv;  // heads of all batches
  float scale;
};

struct Scratch {
  alignas(64) float q[kTileQ][kDim];                    // scaled
  alignas(64) float scores[kTileQ][kTileK];             // then the weights exp(score - maximum)
  alignas(64) float out[kTileQ][kDim];                  // not yet divided by `sums`
  alignas(64) float keys[kPacked ? kDim * kTileK : 1];  // one key tile, transposed: [head_dim][kTileK]
  float maxima[kTileQ], sums[kTileQ];
  float* head_keys;     // every key tile of head `head`, transposed; grows, freed never
  long head_capacity;   // floats
  int head, head_tiles; // which head, and how many of its tiles are packed
};

Problem problem;
Scratch scratch[Config::kThreads];
Pool pool;
int next_item;

constexpr int up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

// Transposes one key tile; keys beyond `valid` become zeros.
void pack(const float* keys, int valid, float* to) {
  for (int key = 0; key < kTileK; ++key)
    for (int d = 0; d < kDim; ++d) to[d * kTileK + key] = key < valid ? keys[long(key) * kDim + d] : 0.0f;
}

// The transposed tile that starts at key `first` of this head, packed now unless it already is.
const float* packed_keys(Scratch& own, int head, int first, int valid) {
  const float* keys = problem.k + (long(head) * problem.seq_kv + first) * kDim;
  if constexpr (!kPackHead) {
    pack(keys, valid, own.keys);
    return own.keys;
  }
  const long needed = long(up(problem.seq_kv, kTileK)) * kDim;
  if (own.head_capacity < needed) {
    free(own.head_keys);
    own.head_keys = static_cast<float*>(aligned_alloc(64, needed * sizeof(float)));
    if (!own.head_keys) abort();
    own.head_capacity = needed;
    own.head = -1;
  }
  if (own.head != head) own.head = head, own.head_tiles = 0;
  float* tile = own.head_keys + long(first) * kDim;
  if (own.head_tiles <= first / kTileK) {
    pack(keys, valid, tile);
    ++own.head_tiles;
  }
  return tile;
}

// scores[kRows][kBlockKeys] from transposed keys: one broadcast of q feeds kKeyVectors vectors of keys.
EVO_INLINE void score_block_packed(const float (*q)[kDim], const float* keys, float (*scores)[kTileK]) {
  Vec sums[kRows][kKeyVectors] = {};
#pragma GCC unroll Config::kUnroll
  for (int d = 0; d < kDim; ++d) {
    Vec column[kKeyVectors];
    for (int c = 0; c < kKeyVectors; ++c) column[c] = load(keys + d * kTileK + c * kLanes);
    for (int r = 0; r < kRows; ++r)
      for (int c = 0; c < kKeyVectors; ++c) sums[r][c] += splat(q[r][d]) * column[c];
  }
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kKeyVectors; ++c) store(&scores[r][c * kLanes], sums[r][c]);
}

// scores[kRows][kBlockKeys] from keys as they lie: dot products along head_dim. The last valid key stands in for those
// beyond the end.
EVO_INLINE void score_block_rows(const float (*q)[kDim], const float* keys, int valid, float (*scores)[kTileK]) {
  Vec sums[kRows][kKeyVectors] = {};
  const float* row[kKeyVectors];
  for (int c = 0; c < kKeyVectors; ++c) row[c] = keys + long(c < valid ? c : valid - 1) * kDim;
#pragma GCC unroll Config::kUnroll
  for (int d = 0; d < kDim; d += kLanes) {
    Vec part[kKeyVectors];
    for (int c = 0; c < kKeyVectors; ++c) part[c] = load(row[c] + d);
    for (int r = 0; r < kRows; ++r)
      for (int c = 0; c < kKeyVectors; ++c) sums[r][c] += load(&q[r][d]) * part[c];
  }
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kKeyVectors; ++c) scores[r][c] = sum(sums[r][c]);
}

// One row of scores -> weights; updates the row's maximum and sum and returns the factor for what was summed before.
EVO_INLINE float soften(float* scores, int visible, int columns, float& maximum, float& total) {
  for (int c = visible < 0 ? 0 : visible; c < columns; ++c) scores[c] = kMinusInfinity;
  Vec tops = load(scores);
  for (int c = kLanes; c < columns; c += kLanes) tops = larger(tops, load(scores + c));
  const float top = largest(tops);
  const float raised = top > maximum ? top : maximum;
  Vec sums = {};
  for (int c = 0; c < columns; c += kLanes) {
    const Vec weights = exponential(load(scores + c) - raised);
    store(scores + c, weights);
    sums += weights;
  }
  const float factor = exponential(splat(maximum - raised))[0];
  total = total * factor + sum(sums);
  maximum = raised;
  return factor;
}

// out[kRows][kBlockDims] = out * factors + weights * values. A tile is summed by itself first: fewer roundings in a row.
EVO_INLINE void value_block(const float (*weights)[kTileK], const float* factors, const float* values, int keys,
                            float (*out)[kDim]) {
  Vec sums[kRows][kValueVectors] = {};
#pragma GCC unroll Config::kUnroll
  for (int key = 0; key < keys; ++key) {
    const float* row = values + long(key) * kDim;
    if constexpr (Config::kPrefetch > 0) __builtin_prefetch(row + Config::kPrefetch * kDim);
    Vec column[kValueVectors];
    for (int c = 0; c < kValueVectors; ++c) column[c] = load(row + c * kLanes);
    for (int r = 0; r < kRows; ++r)
      for (int c = 0; c < kValueVectors; ++c) sums[r][c] += splat(weights[r][key]) * column[c];
  }
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kValueVectors; ++c)
      store(&out[r][c * kLanes], load(&out[r][c * kLanes]) * factors[r] + sums[r][c]);
}

// One key tile for all rows of the query tile. `valid` keys exist; row r sees keys below visible + r when causal.
void key_tile(Scratch& own, int head, int first_q, int first_k, int valid) {
  const long offset = (long(head) * problem.seq_kv + first_k) * kDim;
  const float* keys = kPacked ? packed_keys(own, head, first_k, valid) : problem.k + offset;
  const int visible = Config::kCausal ? first_q - first_k + 1 : valid;
  for (int r = 0; r < kTileQ; r += kRows) {
    int seen = Config::kCausal ? visible + r + kRows - 1 : valid;  // keys that some row of this block sees
    seen = seen < valid ? seen : valid;
    if (seen <= 0) continue;
    const int columns = up(seen, kKeyVectors * kLanes);
    for (int c = 0; c < columns; c += kBlockKeys) {
      if constexpr (kPacked)
        score_block_packed(&own.q[r], keys + c, reinterpret_cast<float(*)[kTileK]>(&own.scores[r][c]));
      else if (c < valid)
        score_block_rows(&own.q[r], keys + long(c) * kDim, valid - c,
                         reinterpret_cast<float(*)[kTileK]>(&own.scores[r][c]));
    }
    float factors[kRows];
    for (int i = 0; i < kRows; ++i) {
      const int mine = Config::kCausal && visible + r + i < valid ? visible + r + i : valid;
      factors[i] = soften(own.scores[r + i], mine, columns, own.maxima[r + i], own.sums[r + i]);
    }
    for (int d = 0; d < kDim; d += kBlockDims)
      value_block(&own.scores[r], factors, problem.v + offset + d, seen,
                  reinterpret_cast<float(*)[kDim]>(&own.out[r][d]));
  }
}

// One query tile of one head, from its first key tile to the written rows.
void query_tile(Scratch& own, int head, int first_q) {
  const int rows = problem.seq_q - first_q < kTileQ ? problem.seq_q - first_q : kTileQ;
  const long offset = (long(head) * problem.seq_q + first_q) * kDim;
  for (int r = 0; r < kTileQ; ++r) {
    for (int d = 0; d < kDim; ++d) own.q[r][d] = r < rows ? problem.q[offset + r * kDim + d] * problem.scale : 0.0f;
    for (int d = 0; d < kDim; ++d) own.out[r][d] = 0.0f;
    own.maxima[r] = kMinusInfinity;
    own.sums[r] = 0.0f;
  }
  const int last = Config::kCausal && first_q + rows < problem.seq_kv ? first_q + rows : problem.seq_kv;
  for (int first_k = 0; first_k < last; first_k += kTileK)
    key_tile(own, head, first_q, first_k, problem.seq_kv - first_k < kTileK ? problem.seq_kv - first_k : kTileK);
  for (int r = 0; r < rows; ++r) {
    const float inverse = 1.0f / own.sums[r];
    for (int d = 0; d < kDim; d += kLanes) store(problem.out + offset + r * kDim + d, load(&own.out[r][d]) * inverse);
  }
}

void item(Scratch& own, int index) {
  const int tiles = (problem.seq_q + kTileQ - 1) / kTileQ;
  const int tile = index % tiles;
  // Causal: the longest rows first, so that no thread ends with a long one.
  query_tile(own, index / tiles, (Config::kCausal ? tiles - 1 - tile : tile) * kTileQ);
}

void work(int thread) {
  Scratch& own = scratch[thread];
  own.head = -1;  // the keys of the last call are not the keys of this one
  const int items = problem.heads * ((problem.seq_q + kTileQ - 1) / kTileQ);
  for (int index; (index = __atomic_fetch_add(&next_item, 1, __ATOMIC_RELAXED)) < items;) item(own, index);
}

}  // namespace
}  // namespace evo

extern "C" void attention_forward(const float* q, const float* k, const float* v, float* out, int batch, int heads,
                                  int seq_q, int seq_kv, float scale) {
  evo::problem = {q, k, v, out, batch * heads, seq_q, seq_kv, scale};
  evo::next_item = 0;
  evo::pool.parallel(evo::work);
}
