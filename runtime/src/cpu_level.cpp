// Which code this processor can run, as levels of the x86-64 psABI (supplement, table 3.1).
#include <cstdint>
#include <initializer_list>

#include "processor.h"
#include "pylazy_runtime.h"

#if defined(PYLAZY_X86_64) && !defined(_MSC_VER)
#  include <cpuid.h>
#endif

namespace pylazy {
namespace {

#if defined(PYLAZY_X86_64)

struct Registers {
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
};

// All zero where the processor does not know the leaf.
Registers cpuid(uint32_t leaf) noexcept {
  Registers found;
#  if defined(_MSC_VER)
  int words[4];
  __cpuid(words, static_cast<int>(leaf & 0x80000000u));
  if (static_cast<uint32_t>(words[0]) < leaf) return found;
  __cpuidex(words, static_cast<int>(leaf), 0);
  found.eax = static_cast<uint32_t>(words[0]);
  found.ebx = static_cast<uint32_t>(words[1]);
  found.ecx = static_cast<uint32_t>(words[2]);
  found.edx = static_cast<uint32_t>(words[3]);
#  else
  if (__get_cpuid_count(leaf, 0, &found.eax, &found.ebx, &found.ecx, &found.edx) == 0) return Registers{};
#  endif
  return found;
}

// The register states that the system saves (XCR0); valid only if CPUID says OSXSAVE.
uint64_t saved_states() noexcept {
#  if defined(_MSC_VER)
  return _xgetbv(0);
#  else
  uint32_t low;
  uint32_t high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
#  endif
}

constexpr uint32_t bits(std::initializer_list<int> positions) {
  uint32_t mask = 0;
  for (const int position : positions) mask |= uint32_t{1} << position;
  return mask;
}

constexpr bool has_all(uint64_t word, uint64_t mask) { return (word & mask) == mask; }

// Leaf 1, ECX: SSE3, SSSE3, FMA, CX16, SSE4.1, SSE4.2, MOVBE, POPCNT, OSXSAVE, AVX, F16C.
constexpr uint32_t kV3Leaf1Ecx = bits({0, 9, 12, 13, 19, 20, 22, 23, 27, 28, 29});
// Leaf 7, EBX: BMI1, AVX2, BMI2.
constexpr uint32_t kV3Leaf7Ebx = bits({3, 5, 8});
// Leaf 80000001, ECX: LAHF, LZCNT.
constexpr uint32_t kV3ExtendedEcx = bits({0, 5});
// Leaf 7, EBX: AVX-512 F, DQ, CD, BW, VL.
constexpr uint32_t kV4Leaf7Ebx = bits({16, 17, 28, 30, 31});
constexpr uint64_t kAvxStates = 0x06;     // XMM, upper halves of YMM
constexpr uint64_t kAvx512States = 0xE6;  // and opmask, upper halves of ZMM0-15, ZMM16-31

const char *host_level() noexcept {
  const uint32_t leaf1_ecx = cpuid(1).ecx;
  if (!has_all(leaf1_ecx, kV3Leaf1Ecx)) return "x86-64";
  const uint32_t leaf7_ebx = cpuid(7).ebx;
  const uint64_t states = saved_states();
  if (!has_all(leaf7_ebx, kV3Leaf7Ebx) || !has_all(cpuid(0x80000001u).ecx, kV3ExtendedEcx) ||
      !has_all(states, kAvxStates)) {
    return "x86-64";
  }
  return has_all(leaf7_ebx, kV4Leaf7Ebx) && has_all(states, kAvx512States) ? "x86-64-v4" : "x86-64-v3";
}

#elif defined(PYLAZY_AARCH64)

const char *host_level() noexcept { return "aarch64"; }

#else

const char *host_level() noexcept { return "unknown"; }

#endif

}  // namespace
}  // namespace pylazy

extern "C" const char *plz_host_cpu_level(void) { return pylazy::host_level(); }
