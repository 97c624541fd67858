// Arithmetic on sizes that says when 64 bits are not enough. All arguments are non-negative.
#ifndef PYLAZY_CHECKED_MATH_H
#define PYLAZY_CHECKED_MATH_H

#include <cstdint>
#include <limits>

namespace pylazy {

constexpr int64_t kInt64Max = std::numeric_limits<int64_t>::max();

// The product, or the largest 64-bit number where the product is larger.
constexpr int64_t saturating_multiply(int64_t a, int64_t b) noexcept {
  return a != 0 && b > kInt64Max / a ? kInt64Max : a * b;
}

// The sum, or the largest 64-bit number where the sum is larger.
constexpr int64_t saturating_add(int64_t a, int64_t b) noexcept { return a > kInt64Max - b ? kInt64Max : a + b; }

constexpr int64_t divide_up(int64_t a, int64_t divisor) noexcept { return a / divisor + (a % divisor != 0); }

constexpr int64_t round_up(int64_t a, int64_t multiple) noexcept {
  return saturating_multiply(divide_up(a, multiple), multiple);
}

}  // namespace pylazy

#endif
