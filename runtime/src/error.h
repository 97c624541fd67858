// The message of the last failure, one for each thread.
#ifndef PYLAZY_ERROR_H
#define PYLAZY_ERROR_H

#include "pylazy_runtime.h"

namespace pylazy {

// Keep a printf-style message for this thread; returns `status`, so that a refusal is one statement.
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
plz_status fail(plz_status status, const char *format, ...) noexcept;

}  // namespace pylazy

#endif
