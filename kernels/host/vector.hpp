// Vectors of Config::kVectorWidth floats (GCC vector extensions) and the exponential, one per value of the knob `exp`.
#pragma once

#include "evo_config.hpp"

#define EVO_INLINE [[gnu::always_inline]] inline

namespace evo {

constexpr int kLanes = Config::kVectorWidth;
typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef int IntVec __attribute__((vector_size(kLanes * 4)));
typedef float LooseVec __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));  // in memory, at any address

EVO_INLINE Vec load(const float* from) { return *reinterpret_cast<const LooseVec*>(from); }
EVO_INLINE void store(float* to, Vec value) { *reinterpret_cast<LooseVec*>(to) = value; }
EVO_INLINE Vec splat(float value) { return value - Vec{}; }
EVO_INLINE Vec larger(Vec a, Vec b) { return a > b ? a : b; }

EVO_INLINE float sum(Vec value) {
  float total = 0;
  for (int lane = 0; lane < kLanes; ++lane) total += value[lane];
  return total;
}

EVO_INLINE float largest(Vec value) {
  float result = value[0];
  for (int lane = 1; lane < kLanes; ++lane) result = value[lane] > result ? value[lane] : result;
  return result;
}

constexpr bool kBase2 = Config::kExp == Exp::kBase2 || Config::kExp == Exp::kBase2Short;

// p(r) with p(0) = 1, relative minimax over half a period on either side.
// Error in fp32: 7.9e-8 with six terms, 1.7e-7 with five.
EVO_INLINE Vec fraction_power(Vec r) {
  if constexpr (Config::kExp == Exp::kPolynomial)
    return 1.0f + r * (1.0f + r * (0.49999994f + r * (0.166664302f + r * (0.041668009f
           + r * (0.00837423559f + r * 0.00138435606f)))));
  if constexpr (Config::kExp == Exp::kBase2)
    return 1.0f + r * (0.693147182f + r * (0.240226477f + r * (0.0555033199f + r * (0.00961843878f
           + r * (0.00133990031f + r * 0.000153532586f)))));
  return 1.0f + r * (0.693147004f + r * (0.240222409f + r * (0.0555073507f + r * (0.00967161916f
         + r * 0.00132645993f))));
}

// e^x for x <= 0; exactly 0 where the result would not be a normal number, -infinity included.
EVO_INLINE Vec exponential(Vec x) {
  if constexpr (Config::kExp == Exp::kLibm) {
    for (int lane = 0; lane < kLanes; ++lane) x[lane] = __builtin_expf(x[lane]);
    return x;
  } else {
    constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number, kept in the low bits
    const Vec bits = x * 1.44269504f;      // e^x = 2^bits
    const Vec shifted = bits + kRound;
    const Vec whole = shifted - kRound;
    // What is left of the exponent: exact in base 2; in base e by ln 2 in two parts, so that the subtraction stays exact.
    const Vec rest = kBase2 ? bits - whole : (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    const Vec scaled = (Vec)((IntVec)fraction_power(rest) + ((IntVec)shifted << 23));
    return x > -87.0f ? scaled : Vec{};
  }
}

}  // namespace evo
