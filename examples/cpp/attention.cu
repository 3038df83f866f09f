// A promoted attention kernel in a C++ program: include the exported header and the template, launch, check.
//
//   evo export --base phase5 -o examples/cpp/evo_config.cuh
//   nvcc -std=c++20 -arch=sm_90 -I examples/cpp -I kernels -I kernels/common examples/cpp/attention.cu -o attention
//   ./attention
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "evo_config.cuh"  // the exported header: found first, it is what the template includes
#include "attention/phase5_micro/kernel.cu"

#define CHECK(call)                                                                       \
  if (cudaError_t error = (call); error != cudaSuccess) {                                 \
    std::fprintf(stderr, "%s: %s\n", #call, cudaGetErrorString(error)), std::exit(1);     \
  }

static_assert(evo::Config::kDtype == evo::Dtype::kFloat16, "this example stores its tensors as fp16");
constexpr int kBatch = 1, kHeads = 8, kLength = 512, kDim = evo::Config::kHeadDim;
constexpr size_t kCount = size_t{kBatch} * kHeads * kLength * kDim;

__half* on_device(const std::vector<__half>& values) {
  __half* pointer;
  CHECK(cudaMalloc(&pointer, values.size() * sizeof(__half)));
  CHECK(cudaMemcpy(pointer, values.data(), values.size() * sizeof(__half), cudaMemcpyHostToDevice));
  return pointer;
}

int main() {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<__half> q(kCount), k(kCount), v(kCount), out(kCount, __float2half(NAN));
  for (auto* tensor : {&q, &k, &v})
    for (auto& value : *tensor) value = __float2half(normal(random));

  const __half *q_gmem = on_device(q), *k_gmem = on_device(k), *v_gmem = on_device(v);
  __half* out_gmem = on_device(out);
  const float scale = 1.0f / std::sqrt(float(kDim));

  using L = evo::Launch;
  const auto extent = [](auto x, auto y, auto z) { return dim3(x, y, z); };
#define EXTENT(kind)                                                                                   \
  extent(L::kind##_x(kBatch, kHeads, kLength, kLength), L::kind##_y(kBatch, kHeads, kLength, kLength), \
         L::kind##_z(kBatch, kHeads, kLength, kLength))
  cudaLaunchAttribute cluster{.id = cudaLaunchAttributeClusterDimension};
  const dim3 blocks = EXTENT(cluster);
  cluster.val.clusterDim = {blocks.x, blocks.y, blocks.z};
  cudaLaunchConfig_t config{EXTENT(grid), EXTENT(block), L::kSharedBytes};
  config.attrs = &cluster;
  config.numAttrs = blocks.x * blocks.y * blocks.z > 1;
  CHECK(cudaFuncSetAttribute(attention_forward, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kSharedBytes));
  CHECK(cudaLaunchKernelEx(&config, attention_forward, q_gmem, k_gmem, v_gmem, out_gmem, kBatch, kHeads, kLength,
                           kLength, scale));
  CHECK(cudaDeviceSynchronize());
  CHECK(cudaMemcpy(out.data(), out_gmem, kCount * sizeof(__half), cudaMemcpyDeviceToHost));

  double worst = 0;  // against float64 on the host, a few rows of every head
  std::vector<double> weight(kLength);
  for (int head = 0; head < kBatch * kHeads; ++head)
    for (int row = 0; row < kLength; row += 37) {
      const size_t base = size_t{1} * head * kLength * kDim, mine = base + size_t{1} * row * kDim;
      const int visible = evo::Config::kCausal ? row + 1 : kLength;
      double sum = 0;
      for (int key = 0; key < visible; ++key) {
        double score = 0;
        for (int d = 0; d < kDim; ++d)
          score += double(__half2float(q[mine + d])) * __half2float(k[base + size_t{1} * key * kDim + d]);
        sum += weight[key] = std::exp(score * scale);
      }
      for (int d = 0; d < kDim; ++d) {
        double expected = 0;
        for (int key = 0; key < visible; ++key) expected += weight[key] / sum * __half2float(v[base + size_t{1} * key * kDim + d]);
        const double error = std::abs(expected - __half2float(out[mine + d]));
        if (!(error <= worst)) worst = std::isnan(error) ? INFINITY : error;
      }
    }
  std::printf("largest error against float64: %.2e\n", worst);
  return worst <= 2e-3 ? 0 : 1;
}
