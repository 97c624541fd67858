// What differs between processors for a thread that waits or computes: the pause, the floating-point control word.
#ifndef PYLAZY_PROCESSOR_H
#define PYLAZY_PROCESSOR_H

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#  define PYLAZY_X86_64 1
#  include <immintrin.h>
#elif defined(__aarch64__) || defined(_M_ARM64)
#  define PYLAZY_AARCH64 1
#endif

#if defined(_MSC_VER)
#  include <intrin.h>
#endif

namespace pylazy {

// Tell the processor that this is a loop that waits.
inline void pause_processor() noexcept {
#if defined(PYLAZY_X86_64)
  _mm_pause();
#elif defined(PYLAZY_AARCH64) && defined(_MSC_VER)
  __isb(_ARM64_BARRIER_SY);
#elif defined(PYLAZY_AARCH64)
  // `yield` is a no-op on most cores; `isb` waits about as long as the pause of x86.
  __asm__ volatile("isb" ::: "memory");
#endif
}

// Rounding and denormal modes. Workers take them from the caller, so that the bits of a result do not depend on which
// thread computed a tile (the caller may have asked, say, PyTorch to flush denormals).
#if defined(PYLAZY_X86_64)
constexpr uint64_t kFloatControlMask = 0xFFC0;  // without the six sticky exception flags
inline uint64_t float_control() noexcept { return _mm_getcsr() & kFloatControlMask; }
inline void set_float_control(uint64_t control) noexcept { _mm_setcsr(static_cast<unsigned>(control)); }
#elif defined(PYLAZY_AARCH64) && defined(_MSC_VER)
inline uint64_t float_control() noexcept { return static_cast<uint64_t>(_ReadStatusReg(ARM64_FPCR)); }
inline void set_float_control(uint64_t control) noexcept {
  _WriteStatusReg(ARM64_FPCR, static_cast<int64_t>(control));
}
#elif defined(PYLAZY_AARCH64)
inline uint64_t float_control() noexcept {
  uint64_t control;
  __asm__ volatile("mrs %0, fpcr" : "=r"(control));
  return control;
}
inline void set_float_control(uint64_t control) noexcept { __asm__ volatile("msr fpcr, %0" ::"r"(control)); }
#else
inline uint64_t float_control() noexcept { return 0; }
inline void set_float_control(uint64_t) noexcept {}
#endif

}  // namespace pylazy

#endif
