// A loaded kernel image.
#ifndef PYLAZY_PROGRAM_H
#define PYLAZY_PROGRAM_H

#include <memory>

#include "executable_memory.h"
#include "pylazy_runtime.h"

struct plz_program {
  pylazy::ExecutableMemory code;
  int buffer_count = 0;
  int phase_count = 0;
  std::unique_ptr<plz_buffer[]> buffers;
  std::unique_ptr<plz_phase[]> phases;
};

namespace pylazy {

// Refuse buffers that break a rule of pylazy_runtime.h.
plz_status check_buffers(const plz_buffer *buffers, int count) noexcept;

}  // namespace pylazy

#endif
