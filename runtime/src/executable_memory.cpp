#include "executable_memory.h"

#include <cstring>

#include "error.h"

#if defined(_WIN32)
#  define WIN32_LEAN_AND_MEAN
#  if !defined(NOMINMAX)
#    define NOMINMAX
#  endif
#  include <windows.h>
#else
#  include <cerrno>
#  include <sys/mman.h>
#  if defined(__APPLE__) && defined(__aarch64__)
#    include <libkern/OSCacheControl.h>
#    include <pthread.h>
#    define PYLAZY_MAP_JIT 1
#  endif
#endif

namespace pylazy {

#if defined(_WIN32)

ExecutableMemory::~ExecutableMemory() {
  if (base_ != nullptr) VirtualFree(base_, 0, MEM_RELEASE);
}

plz_status ExecutableMemory::load(const void *code, size_t bytes) noexcept {
  base_ = VirtualAlloc(nullptr, bytes, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE);
  if (base_ == nullptr) {
    return fail(PLZ_OUT_OF_MEMORY, "cannot allocate %llu bytes for code: system error %lu",
                static_cast<unsigned long long>(bytes), GetLastError());
  }
  bytes_ = bytes;
  std::memcpy(base_, code, bytes);
  DWORD previous;
  if (!VirtualProtect(base_, bytes, PAGE_EXECUTE_READ, &previous)) {
    return fail(PLZ_SYSTEM_ERROR, "the system refuses to make memory executable: system error %lu", GetLastError());
  }
  FlushInstructionCache(GetCurrentProcess(), base_, bytes);
  return PLZ_OK;
}

#else

ExecutableMemory::~ExecutableMemory() {
  if (base_ != nullptr) munmap(base_, bytes_);
}

plz_status ExecutableMemory::load(const void *code, size_t bytes) noexcept {
#  if defined(PYLAZY_MAP_JIT)
  const int protection = PROT_READ | PROT_WRITE | PROT_EXEC;  // the thread's own switch keeps the two apart
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_JIT;
#  else
  const int protection = PROT_READ | PROT_WRITE;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#  endif
  void *pages = mmap(nullptr, bytes, protection, flags, -1, 0);
  if (pages == MAP_FAILED) {
    return fail(PLZ_OUT_OF_MEMORY, "cannot map %zu bytes for code: %s", bytes, std::strerror(errno));
  }
  base_ = pages;
  bytes_ = bytes;
#  if defined(PYLAZY_MAP_JIT)
  pthread_jit_write_protect_np(0);
  std::memcpy(base_, code, bytes);
  pthread_jit_write_protect_np(1);
  sys_icache_invalidate(base_, bytes);
#  else
  std::memcpy(base_, code, bytes);
  if (mprotect(base_, bytes, PROT_READ | PROT_EXEC) != 0) {
    return fail(PLZ_SYSTEM_ERROR,
                "the system refuses to make memory executable: %s (a security policy such as SELinux execmem?)",
                std::strerror(errno));
  }
  char *begin = static_cast<char *>(base_);
  __builtin___clear_cache(begin, begin + bytes);
#  endif
  return PLZ_OK;
}

#endif

}  // namespace pylazy
