// One PTX instruction per named function. Shared addresses are 32-bit offsets in the shared window (see shared_address).
// Section numbers are those of the PTX ISA manual, version 8.x.
#pragma once

namespace evo {

/// Compute capability of the code being compiled, times ten; 90 in passes for the host.
__host__ __device__ constexpr int architecture() {
#if defined(__CUDA_ARCH__)
  return __CUDA_ARCH__ / 10;
#else
  return 90;
#endif
}

/// Most dynamic shared memory one block may ask for, by architecture (bytes).
__host__ __device__ constexpr int shared_bytes_per_block() {
  if (architecture() >= 90) return 232448;
  return architecture() == 80 || architecture() == 87 ? 166912 : 101376;
}

/// Most registers a thread can have where `threads` are to be resident on a multiprocessor: 64 Ki, given out to four warps at a time.
__host__ __device__ constexpr int registers_per_thread(int threads) {
  const int share = 65536 / ((threads + 127) / 128 * 128);
  return share < 255 ? share : 255;
}

/// Address of a shared variable as the 32-bit offset that the instructions below take.
__device__ __forceinline__ unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// ---- cp.async: global to shared without passing through registers (sm_80; 9.7.9.25 "cp.async") ----

/// Starts a copy of 16 bytes, or of 16 zero bytes where `valid` is false (then nothing is read). Both addresses 16-byte
/// aligned. Bypasses L1 (.cg).
__device__ __forceinline__ void cp_async_16(unsigned to_smem, const void* from_gmem, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to_smem), "l"(from_gmem), "r"(bytes) : "memory");
}

/// Closes the group of copies that this thread has started since the last commit.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }

/// Waits until at most `kPending` of this thread's newest groups are still under way.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

/// Arrives on the mbarrier once all copies that this thread has started are done; counts as one of the expected
/// arrivals (.noinc). sm_80; 9.7.13.15 "cp.async.mbarrier.arrive".
__device__ __forceinline__ void cp_async_mbarrier_arrive(unsigned barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];\n" ::"r"(barrier) : "memory");
}

// ---- mbarrier: a phase completes after `arrivals` arrivals (sm_80; 9.7.13.15 "mbarrier") ----

/// Makes a barrier of the 8-byte aligned word; a block barrier must follow before others use it.
__device__ __forceinline__ void mbarrier_init(unsigned barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(arrivals) : "memory");
}

/// Counts one arrival; this thread's earlier accesses come before it (release).
__device__ __forceinline__ void mbarrier_arrive(unsigned barrier) {
  [[maybe_unused]] unsigned long long state;
  asm volatile("mbarrier.arrive.shared::cta.b64 %0, [%1];\n" : "=l"(state) : "r"(barrier) : "memory");
}

/// Whether the phase of this parity has completed; sm_90 may suspend the thread for a while before it says no.
__device__ __forceinline__ bool mbarrier_try_wait(unsigned barrier, int parity) {
  unsigned done;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
               : "=r"(done) : "r"(barrier), "r"(parity) : "memory");
#else
  asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
               : "=r"(done) : "r"(barrier), "r"(parity) : "memory");
#endif
  return done != 0;
}

/// Waits for the phase of this parity (0 for the first, then alternating); what the arrivers wrote is then visible.
__device__ __forceinline__ void mbarrier_wait(unsigned barrier, int parity) {
  while (!mbarrier_try_wait(barrier, parity)) {
  }
}

// ---- Named barriers: 16 per block, `threads` a multiple of 32 (9.7.13.1 "bar") ----

/// Waits until `threads` threads have come to barrier `id`.
__device__ __forceinline__ void barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}

// ---- Clusters: blocks that run together and reach each other's shared memory (sm_90) ----

/// Arrives at the cluster's barrier without ordering memory: enough to know that every block has started.
__device__ __forceinline__ void cluster_arrive_relaxed() { asm volatile("barrier.cluster.arrive.relaxed.aligned;\n" ::: "memory"); }

/// Arrives at the cluster's barrier; this thread's earlier writes come before it (release). 9.7.13.3 "barrier.cluster".
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;\n" ::: "memory"); }

/// Waits until every thread of the cluster has arrived (acquire).
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;\n" ::: "memory"); }

/// Address of the same shared variable in the block of this rank, in the cluster's shared window. 9.7.9.23 "mapa".
__device__ __forceinline__ unsigned cluster_address(unsigned smem, int rank) {
  unsigned mapped;
  asm("mapa.shared::cluster.u32 %0, %1, %2;\n" : "=r"(mapped) : "r"(smem), "r"(rank));
  return mapped;
}

/// Stores two floats to an 8-byte aligned address of the cluster's shared window.
__device__ __forceinline__ void cluster_store(unsigned address, float x, float y) {
  asm volatile("st.shared::cluster.v2.f32 [%0], {%1, %2};\n" ::"r"(address), "f"(x), "f"(y) : "memory");
}

// ---- ldmatrix: 8x8 matrices of 16-bit elements from shared memory (sm_75; 9.7.14.5.15 "ldmatrix") ----
// Lane 8i+r gives the 16-byte aligned address of row r of matrix i; lane 4g+t receives elements 2t, 2t+1 of row g, or
// of column g where transposed.

/// Four matrices.
__device__ __forceinline__ void ldmatrix_x4(unsigned (&to)[4], unsigned row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(row) : "memory");
}

/// Four matrices, transposed.
__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&to)[4], unsigned row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(row) : "memory");
}

// ---- mma: d[16x8] += a[16x16] b[16x8] in float32 (sm_80; 9.7.14.5.8 "mma.m16n8k16") ----
// Lane 4g+t holds a: rows g, g+8, g, g+8 at columns 2t and, for the last two, 2t+8; b: column g, rows 2t and 2t+8;
// d: columns 2t, 2t+1 of row g, then of row g+8.

/// fp16 factors.
__device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// bf16 factors.
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- Stores ----

/// Stores 8 bytes to an 8-byte aligned global address (sm_50; 9.7.9.11 "st").
__device__ __forceinline__ void global_store(void* gmem, uint2 words) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};\n" ::"l"(gmem), "r"(words.x), "r"(words.y) : "memory");
}

/// Stores 16 bytes to a 16-byte aligned global address.
__device__ __forceinline__ void global_store(void* gmem, uint4 words) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};\n" ::"l"(gmem), "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w)
               : "memory");
}

/// Stores two floats to an 8-byte aligned shared address.
__device__ __forceinline__ void shared_store(unsigned smem, float x, float y) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};\n" ::"r"(smem), "f"(x), "f"(y) : "memory");
}

// ---- Arithmetic ----

/// 2^x to about 2 units in the last place, subnormal results flushed; 0 for -inf (sm_50; 9.7.3.22 "ex2").
__device__ __forceinline__ float ex2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

/// 1 / x to about 1 unit in the last place, without the slow path of a division (sm_50; 9.7.3.13 "rcp").
__device__ __forceinline__ float rcp_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

/// Two floats rounded to fp16, `low` in the low half (sm_80; 9.7.9.21 "cvt").
__device__ __forceinline__ unsigned pack_f16(float low, float high) {
  unsigned packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;\n" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

/// Two floats rounded to bf16, `low` in the low half (sm_80; 9.7.9.21 "cvt").
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
  unsigned packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

}  // namespace evo
