// Memory that holds machine code: written once, then read and executed, never both writable and executable.
#ifndef PYLAZY_EXECUTABLE_MEMORY_H
#define PYLAZY_EXECUTABLE_MEMORY_H

#include <cstddef>
#include <cstdint>

#include "pylazy_runtime.h"

namespace pylazy {

class ExecutableMemory {
 public:
  ExecutableMemory() = default;
  ExecutableMemory(const ExecutableMemory &) = delete;
  ExecutableMemory &operator=(const ExecutableMemory &) = delete;
  ~ExecutableMemory();

  // Copy position-independent code to fresh pages; at most once for each object.
  plz_status load(const void *code, size_t bytes) noexcept;

  template <typename Function>
  Function function_at(int64_t offset) const noexcept {
    return reinterpret_cast<Function>(static_cast<char *>(base_) + offset);
  }

 private:
  void *base_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace pylazy

#endif
