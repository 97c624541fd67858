#include "error.h"

#include <cstdarg>
#include <cstdio>

namespace pylazy {
namespace {

// A plain array: a thread_local with a destructor would run code when a thread of the host ends.
thread_local char last_error[4096] = "";  // the log of a driver may be long

}  // namespace

plz_status fail(plz_status status, const char *format, ...) noexcept {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(last_error, sizeof(last_error), format, arguments);
  va_end(arguments);
  return status;
}

}  // namespace pylazy

extern "C" const char *plz_last_error(void) { return pylazy::last_error; }

extern "C" int32_t plz_abi_version(void) { return PLZ_ABI_VERSION; }
