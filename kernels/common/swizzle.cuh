// Where a row of 16-bit elements lies in shared memory, in chunks of 16 bytes.
#pragma once

namespace evo {

/// Rows of `kElements` 16-bit elements.
///
/// ldmatrix reads the same chunk of eight rows at once. Rows of 128 or 256 bytes put all eight on the same four banks:
/// an eight-way conflict. Padding each row by one chunk shifts the banks; the xor swizzle permutes the chunks of a row
/// by the row's number and needs no room.
template <int kElements, bool kPadded, bool kXor>
struct SharedRows {
  static constexpr int kChunks = kElements / 8;
  static constexpr int kStrideBytes = kElements * 2 + (kPadded ? 16 : 0);
  static_assert(kElements % 64 == 0, "eight chunks at least, so that the swizzle stays inside its row");
  static_assert(!(kPadded && kXor), "one remedy at a time");

  /// Byte offset of a chunk. Adding 8 n rows adds 8 n kStrideBytes: the swizzle repeats every eight rows.
  static __device__ __forceinline__ constexpr int offset(int row, int chunk) {
    return row * kStrideBytes + (kXor ? chunk ^ (row & 7) : chunk) * 16;
  }
};

}  // namespace evo
