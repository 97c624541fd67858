/* Stands in for the CUDA driver in tests: its devices, modules and memory, which is that of the host.
 *
 * A launch calls back into the test, which runs the PTX of the module on the interpreter. Every call is noted in a log.
 * When work runs is told by stand_in_streams.c.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stand_in.h"

#if !defined(_WIN32)
#  include <sys/mman.h>
#endif

enum { MAX_DEVICES = 8, MAX_MODULES = 4096, MAX_ALLOCATIONS = 65536, MAX_STACK = 64 };
enum { MAX_PARAMETERS = 160, ON_HOST = -1 };

typedef struct { int device; char *text; } Module;
typedef struct { const Module *module; int parameter_count; char name[256]; } Function;
/* `contents` are at `start`, or elsewhere where the host may not touch the memory of a device. */
typedef struct { char *start; size_t size; int device, owned, freed; char *contents; } Allocation;
typedef int (*Launch)(const char *text, const char *name, const uint32_t *grid, uint32_t threads, void *stream,
                      int device, void **parameters);

static int device_count, processors = 4, major = 9, minor = 0, has_pools = 1;
static size_t free_bytes = (size_t)1 << 34;
static Launch launch;
static Module modules[MAX_MODULES];
static int module_count;
static Allocation allocations[MAX_ALLOCATIONS];
static int allocation_count, is_hidden;
static int contexts[MAX_DEVICES];          /* their addresses are the handles */
static __thread void *stack[MAX_STACK];
static __thread int depth;
static char log_text[1 << 20];
static size_t log_used;
static char failing[64], failing_log[1024];
static int failing_with;

/* What tests call. */

EXPORT void stand_in_configure(int devices, int new_processors, int new_major, int new_minor, int new_has_pools) {
  device_count = devices; processors = new_processors; major = new_major; minor = new_minor; has_pools = new_has_pools;
}
EXPORT void stand_in_set_free_bytes(size_t bytes) { free_bytes = bytes; }
EXPORT void stand_in_set_launch(Launch callback) { launch = callback; }
EXPORT const char *stand_in_log(void) { return log_text; }
EXPORT void stand_in_clear_log(void) { log_text[0] = '\0'; log_used = 0; }
EXPORT int stand_in_allocated(void) {
  int count = 0;
  for (int k = 0; k < allocation_count; ++k) count += allocations[k].owned && !allocations[k].freed;
  return count;
}
/* The next call of a function fails with an error; a module's log is filled. */
EXPORT void stand_in_fail(const char *name, int result, const char *text) {
  snprintf(failing, sizeof(failing), "%s", name); snprintf(failing_log, sizeof(failing_log), "%s", text);
  failing_with = result;
}
/* Memory that a library of the test brings. */
EXPORT void stand_in_register(void *start, size_t size, int device) {
  Allocation made = {(char *)start, size, device, 0, 0, (char *)start};
  allocations[allocation_count++ % MAX_ALLOCATIONS] = made;
}
EXPORT int stand_in_find(void *address, void **start, size_t *size, int *device) {
  for (int k = allocation_count - 1; k >= 0; --k) {
    char *first = allocations[k].start;
    if (!allocations[k].freed && (char *)address >= first && (char *)address < first + allocations[k].size) {
      *start = first; *size = allocations[k].size; *device = allocations[k].device;
      return 1;
    }
  }
  return 0;
}

/* Hide the memory of devices from the host, which ends at a signal where it reads or writes it. */
EXPORT void stand_in_hide_memory(int hidden) { is_hidden = hidden; }
/* Where the stand-in has the contents of what lies at an address. */
EXPORT void *stand_in_contents(const void *address) {
  for (int k = allocation_count - 1; k >= 0; --k) {
    const char *first = allocations[k].start;
    if ((const char *)address >= first && (const char *)address < first + allocations[k].size) {
      return allocations[k].contents + ((const char *)address - first);
    }
  }
  return (void *)(uintptr_t)address;
}

void note(const char *format, ...) {
  if (log_used > sizeof(log_text) - 1024) return;
  va_list arguments;
  va_start(arguments, format);
  log_used += (size_t)vsnprintf(log_text + log_used, 900, format, arguments);
  va_end(arguments);
  strcpy(log_text + log_used++, "\n");
}

int fails(const char *name) {
  if (strcmp(name, failing) != 0) return SUCCESS;
  failing[0] = '\0';
  return failing_with;
}

int current_device(void) {
  return depth == 0 ? -1 : (int)((int *)stack[depth - 1] - contexts);
}

/* The driver. */

EXPORT int cuInit(unsigned int flags) { (void)flags; BEGIN("cuInit") note("cuInit"); return SUCCESS; }
EXPORT int cuDeviceGetCount(int *count) {
  BEGIN("cuDeviceGetCount")
  *count = device_count;
  return device_count == 0 ? NO_DEVICE : SUCCESS;
}
EXPORT int cuDeviceGet(int *device, int number) {
  if (number < 0 || number >= device_count) return INVALID_DEVICE;
  *device = number;
  return SUCCESS;
}
EXPORT int cuDeviceGetName(char *name, int size, int device) {
  snprintf(name, (size_t)size, "stand-in %d", device);
  return SUCCESS;
}
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  switch (attribute) {
    case 13: *value = 1000000; return SUCCESS;
    case 16: *value = processors; return SUCCESS;
    case 75: *value = major; return SUCCESS;
    case 76: *value = minor; return SUCCESS;
    case 115: *value = has_pools; return SUCCESS;
    default: return INVALID_VALUE;
  }
}
EXPORT int cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
EXPORT int cuDeviceTotalMem_v2(size_t *size, int device) { (void)device; *size = free_bytes; return SUCCESS; }
EXPORT int cuDevicePrimaryCtxRetain(void **context, int device) {
  BEGIN("cuDevicePrimaryCtxRetain")
  note("cuDevicePrimaryCtxRetain %d", device);
  *context = &contexts[device];
  return SUCCESS;
}
EXPORT int cuDevicePrimaryCtxGetState(int device, unsigned int *flags, int *active) {
  (void)device;
  *flags = 0;
  *active = 1;
  return SUCCESS;
}
EXPORT int cuCtxGetCurrent(void **context) { *context = depth == 0 ? NULL : stack[depth - 1]; return SUCCESS; }
EXPORT int cuCtxSetCurrent(void *context) {
  if (depth == 0) depth = 1;
  stack[depth - 1] = context;
  return SUCCESS;
}
EXPORT int cuCtxPushCurrent_v2(void *context) {
  if (depth == MAX_STACK) return INVALID_CONTEXT;
  stack[depth++] = context;
  return SUCCESS;
}
EXPORT int cuCtxPopCurrent_v2(void **context) {
  if (depth == 0) return INVALID_CONTEXT;
  *context = stack[--depth];
  return SUCCESS;
}
EXPORT int cuModuleLoadDataEx(void **module, const void *image, unsigned int count, int *options, void **values) {
  const int failure = fails("cuModuleLoadDataEx");
  note("cuModuleLoadDataEx device=%d %s", current_device(), memcmp(image, "\177ELF", 4) == 0 ? "cubin" : "ptx");
  if (failure != SUCCESS) {
    for (unsigned int k = 0; k < count; ++k) {
      if (options[k] == 5) snprintf((char *)values[k], 1000, "%s", failing_log);
    }
    return failure;
  }
  if (current_device() < 0) return INVALID_CONTEXT;
  const int refused = refuse_while_capturing();
  if (refused != SUCCESS) return refused;
  if (memcmp(image, "\177ELF", 4) == 0) return NO_BINARY; /* the interpreter reads PTX */
  if (module_count == MAX_MODULES) return OUT_OF_MEMORY;
  Module *made = &modules[module_count++];
  made->device = current_device();
  made->text = strdup((const char *)image);
  *module = made;
  return SUCCESS;
}
EXPORT int cuModuleGetFunction(void **function, void *module, const char *name) {
  BEGIN_IN_CONTEXT("cuModuleGetFunction")
  const Module *from = (const Module *)module;
  char entry[300];
  snprintf(entry, sizeof(entry), ".entry %s(", name);
  const char *found = strstr(from->text, entry);
  if (found == NULL) return NOT_FOUND;
  note("cuModuleGetFunction %s", name);
  Function *made = (Function *)calloc(1, sizeof(Function));
  made->module = from;
  for (const char *end = strchr(found, ')'); (found = strstr(found, ".param")) != NULL && found < end; ++found) {
    ++made->parameter_count;
  }
  snprintf(made->name, sizeof(made->name), "%s", name);
  *function = made;
  return SUCCESS;
}
static int run_launch(const Work *work) {
  const Function *function = (const Function *)work->function;
  void *addresses[MAX_PARAMETERS];
  for (int k = 0; k < work->parameter_count; ++k) addresses[k] = &work->parameters[k];
  return launch(function->module->text, function->name, work->grid, work->threads, work->stream,
                function->module->device, addresses);
}
EXPORT int cuLaunchKernel(void *function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
                          unsigned int by, unsigned int bz, unsigned int shared, void *stream, void **parameters,
                          void **extra) {
  BEGIN_IN_CONTEXT("cuLaunchKernel")
  const Function *found = (const Function *)function;
  note("cuLaunchKernel %s grid=%u,%u,%u threads=%u stream=%llu device=%d", found->name, gx, gy, gz, bx,
       (unsigned long long)(uintptr_t)stream, current_device());
  if (found->module->device != current_device()) return INVALID_HANDLE;
  if (gx == 0 || gy == 0 || gz == 0 || gy > 65535 || gz > 65535 || by != 1 || bz != 1 || shared != 0 || extra != NULL) {
    return INVALID_VALUE;
  }
  if (found->parameter_count > MAX_PARAMETERS) return OUT_OF_MEMORY;
  Work work = {.run = run_launch, .function = found, .grid = {gx, gy, gz}, .threads = bx, .stream = stream};
  work.parameter_count = found->parameter_count;
  work.parameters = (uint64_t *)malloc(sizeof(uint64_t) * MAX_PARAMETERS); /* kept: a graph may launch it again */
  for (int k = 0; k < work.parameter_count; ++k) memcpy(&work.parameters[k], parameters[k], sizeof(uint64_t));
  return submit(stream, &work);
}
EXPORT int cuMemGetInfo_v2(size_t *available, size_t *total) {
  BEGIN_IN_CONTEXT("cuMemGetInfo")
  note("cuMemGetInfo");
  *available = free_bytes;
  *total = free_bytes;
  return SUCCESS;
}

static int allocate(void **address, size_t size, int device) {
  if (size > free_bytes || allocation_count == MAX_ALLOCATIONS) return OUT_OF_MEMORY;
  size_t rounded = (size + 255) / 256 * 256;
  char *memory = (char *)malloc(rounded + 256); /* never given back, so that a stale address is found */
  char *start = memory + (256 - (uintptr_t)memory % 256);
  memset(start, 0xFF, rounded); /* NaN in every dtype */
  Allocation made = {start, size, device, 1, 0, start};
#if !defined(_WIN32)
  if (is_hidden && device != ON_HOST) {
    void *hidden = mmap(NULL, rounded, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (hidden == MAP_FAILED) return OUT_OF_MEMORY;
    made.start = (char *)hidden;
  }
#endif
  allocations[allocation_count++] = made;
  *address = made.start;
  return SUCCESS;
}
static int release(void *address) {
  for (int k = allocation_count - 1; k >= 0; --k) {
    if (allocations[k].owned && !allocations[k].freed && allocations[k].start == (char *)address) {
      memset(allocations[k].contents, 0xFF, allocations[k].size);
      allocations[k].freed = 1;
      return SUCCESS;
    }
  }
  return INVALID_VALUE;
}
EXPORT int cuMemAlloc_v2(uint64_t *address, size_t size) {
  BEGIN_IN_CONTEXT("cuMemAlloc") note("cuMemAlloc %zu", size);
  const int refused = refuse_while_capturing();
  return refused != SUCCESS ? refused : allocate((void **)address, size, current_device());
}
EXPORT int cuMemFree_v2(uint64_t address) {
  BEGIN_IN_CONTEXT("cuMemFree")
  note("cuMemFree");
  const int refused = refuse_while_capturing();
  if (refused != SUCCESS) return refused;
  const int status = drain_device(-1);
  const int released = release((void *)(uintptr_t)address);
  return status != SUCCESS ? status : released;
}
EXPORT int cuMemAllocAsync(uint64_t *address, size_t size, void *stream) {
  BEGIN_IN_CONTEXT("cuMemAllocAsync")
  note("cuMemAllocAsync %zu stream=%llu", size, (unsigned long long)(uintptr_t)stream);
  if (is_capturing(stream)) return CAPTURE_UNSUPPORTED; /* CUDA makes it a node of the graph */
  return allocate((void **)address, size, current_device());
}
static int run_release(const Work *work) { return release(work->target); }
EXPORT int cuMemFreeAsync(uint64_t address, void *stream) {
  BEGIN_IN_CONTEXT("cuMemFreeAsync")
  note("cuMemFreeAsync stream=%llu", (unsigned long long)(uintptr_t)stream);
  Work work = {.run = run_release, .target = (void *)(uintptr_t)address};
  return submit(stream, &work);
}
EXPORT int cuMemHostAlloc(void **address, size_t size, unsigned int flags) {
  (void)flags;
  const int refused = refuse_while_capturing();
  return refused != SUCCESS ? refused : allocate(address, size, ON_HOST);
}
EXPORT int cuMemFreeHost(void *address) {
  const int refused = refuse_while_capturing();
  if (refused != SUCCESS) return refused;
  const int status = drain_device(-1);
  const int released = release(address);
  return status != SUCCESS ? status : released;
}
/* The device of memory, -1 for pinned memory of the host; 0 for other memory of the host. */
static int find_owner(const void *address, int *device) {
  void *start;
  size_t size;
  return stand_in_find((void *)(uintptr_t)address, &start, &size, device);
}
EXPORT int cuPointerGetAttribute(void *value, int attribute, uint64_t address) {
  enum { MEMORY_TYPE = 2, DEVICE_ORDINAL = 9, MEMORY_OF_HOST = 1, MEMORY_OF_DEVICE = 2 };
  int device = 0;
  if (!find_owner((const void *)(uintptr_t)address, &device)) return INVALID_VALUE;
  if (attribute == MEMORY_TYPE) {
    *(unsigned int *)value = device == ON_HOST ? MEMORY_OF_HOST : MEMORY_OF_DEVICE;
  } else if (attribute == DEVICE_ORDINAL) {
    *(int *)value = device == ON_HOST ? 0 : device;
  } else {
    return INVALID_VALUE;
  }
  return SUCCESS;
}

static int run_copy(const Work *work) {
  memmove(stand_in_contents(work->target), stand_in_contents(work->source), work->size);
  free(work->data); /* what was read of pageable memory */
  return SUCCESS;
}
static int run_fill(const Work *work) {
  memset(stand_in_contents(work->target), (int)work->value, work->size);
  return SUCCESS;
}

/* Pageable memory of the host is read at once, and cannot be captured; pinned memory is read when the copy runs. */
static int copy_to_device(void *target, const void *source, size_t size, void *stream) {
  int device = 0;
  Work work = {.run = run_copy, .target = target, .source = source, .size = size};
  if (!find_owner(source, &device)) {
    if (is_capturing(stream)) return CAPTURE_UNSUPPORTED;
    work.data = malloc(size == 0 ? 1 : size);
    work.source = memcpy(work.data, source, size);
  }
  return submit(stream, &work);
}
static int copy_to_host(void *target, const void *source, size_t size, void *stream) {
  int device = 0;
  if (is_capturing(stream) && !find_owner(target, &device)) return CAPTURE_UNSUPPORTED;
  Work work = {.run = run_copy, .target = target, .source = source, .size = size, .to_host = 1};
  return submit(stream, &work);
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t target, const void *source, size_t size, void *stream) {
  BEGIN_IN_CONTEXT("cuMemcpyHtoDAsync")
  note("cuMemcpyHtoDAsync %zu stream=%llu", size, (unsigned long long)(uintptr_t)stream);
  return copy_to_device((void *)(uintptr_t)target, source, size, stream);
}
EXPORT int cuMemcpyDtoHAsync_v2(void *target, uint64_t source, size_t size, void *stream) {
  BEGIN_IN_CONTEXT("cuMemcpyDtoHAsync")
  note("cuMemcpyDtoHAsync %zu stream=%llu", size, (unsigned long long)(uintptr_t)stream);
  return copy_to_host(target, (const void *)(uintptr_t)source, size, stream);
}
EXPORT int cuMemcpyAsync(uint64_t target, uint64_t source, size_t size, void *stream) {
  BEGIN_IN_CONTEXT("cuMemcpyAsync")
  note("cuMemcpyAsync %zu stream=%llu", size, (unsigned long long)(uintptr_t)stream);
  int from = ON_HOST, to = ON_HOST;
  find_owner((const void *)(uintptr_t)source, &from);
  find_owner((const void *)(uintptr_t)target, &to);
  if (from == ON_HOST) return copy_to_device((void *)(uintptr_t)target, (const void *)(uintptr_t)source, size, stream);
  if (to == ON_HOST) return copy_to_host((void *)(uintptr_t)target, (const void *)(uintptr_t)source, size, stream);
  Work work = {.run = run_copy, .target = (void *)(uintptr_t)target, .source = (const void *)(uintptr_t)source};
  work.size = size;
  return submit(stream, &work);
}
EXPORT int cuMemsetD8Async(uint64_t target, unsigned char value, size_t size, void *stream) {
  BEGIN_IN_CONTEXT("cuMemsetD8Async")
  note("cuMemsetD8Async %zu stream=%llu", size, (unsigned long long)(uintptr_t)stream);
  Work work = {.run = run_fill, .target = (void *)(uintptr_t)target, .value = value, .size = size};
  return submit(stream, &work);
}

static const struct { int result; const char *name, *text; } errors[] = {
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "what the driver would say"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error"},
    {CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would make the legacy stream depend on it"},
    {0, "CUDA_ERROR_OF_THE_STAND_IN", "what the driver would say"},
};
static int find_error(int result) {
  int k = 0;
  while (errors[k].result != result && errors[k].result != 0) ++k;
  return k;
}
EXPORT int cuGetErrorName(int result, const char **name) { *name = errors[find_error(result)].name; return SUCCESS; }
EXPORT int cuGetErrorString(int result, const char **text) { *text = errors[find_error(result)].text; return SUCCESS; }
