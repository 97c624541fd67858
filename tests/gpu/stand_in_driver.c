/* Stands in for the CUDA driver in tests: the functions that the runtime library uses, on memory of the host.
 *
 * A launch calls back into the test, which runs the PTX of the module on the interpreter. Every call is noted in a log.
 * Copies to the host are done when their stream is waited for, and not before; all else is done at once.
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#  define EXPORT __declspec(dllexport)
#else
#  define EXPORT __attribute__((visibility("default")))
#endif

enum {
  SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
  NO_BINARY = 209, INVALID_PTX = 218, INVALID_HANDLE = 400, NOT_FOUND = 500
};
enum { MAX_DEVICES = 8, MAX_MODULES = 4096, MAX_ALLOCATIONS = 65536, MAX_PENDING = 4096, MAX_STACK = 64 };

typedef struct { int device; char *text; } Module;
typedef struct { const Module *module; char name[256]; } Function;
typedef struct { char *start; size_t size; int device; int owned; } Allocation;
typedef struct { void *host; const void *device; size_t size; void *stream; } Copy;
typedef int (*Launch)(const char *text, const char *name, const uint32_t *grid, uint32_t threads, void *stream,
                      int device, void **parameters);

static int device_count, processors = 4, major = 9, minor = 0, has_pools = 1;
static size_t free_bytes = (size_t)1 << 34;
static Launch launch;
static Module modules[MAX_MODULES];
static int module_count;
static Allocation allocations[MAX_ALLOCATIONS];
static int allocation_count;
static Copy pending[MAX_PENDING];
static int pending_count;
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
  for (int k = 0; k < allocation_count; ++k) count += allocations[k].owned && allocations[k].start != NULL;
  return count;
}
/* The next call of a function fails with an error; a module's log is filled. */
EXPORT void stand_in_fail(const char *name, int result, const char *text) {
  snprintf(failing, sizeof(failing), "%s", name); snprintf(failing_log, sizeof(failing_log), "%s", text);
  failing_with = result;
}
/* Memory that a library of the test brings. */
EXPORT void stand_in_register(void *start, size_t size, int device) {
  Allocation made = {(char *)start, size, device, 0};
  allocations[allocation_count++ % MAX_ALLOCATIONS] = made;
}
EXPORT int stand_in_find(void *address, void **start, size_t *size, int *device) {
  for (int k = allocation_count - 1; k >= 0; --k) {
    char *first = allocations[k].start;
    if (first != NULL && (char *)address >= first && (char *)address < first + allocations[k].size) {
      *start = first; *size = allocations[k].size; *device = allocations[k].device;
      return 1;
    }
  }
  return 0;
}

static void note(const char *format, ...) {
  if (log_used > sizeof(log_text) - 1024) return;
  va_list arguments;
  va_start(arguments, format);
  log_used += (size_t)vsnprintf(log_text + log_used, 900, format, arguments);
  va_end(arguments);
  strcpy(log_text + log_used++, "\n");
}

static int fails(const char *name) {
  if (strcmp(name, failing) != 0) return SUCCESS;
  failing[0] = '\0';
  return failing_with;
}

static int current_device(void) {
  return depth == 0 ? -1 : (int)((int *)stack[depth - 1] - contexts);
}

#define BEGIN(name)                                  \
  const int failure = fails(name);                   \
  if (failure != SUCCESS) return failure;
#define BEGIN_IN_CONTEXT(name)                       \
  BEGIN(name)                                        \
  if (current_device() < 0) return INVALID_CONTEXT;

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
EXPORT int cuDevicePrimaryCtxRetain(void **context, int device) {
  BEGIN("cuDevicePrimaryCtxRetain")
  note("cuDevicePrimaryCtxRetain %d", device);
  *context = &contexts[device];
  return SUCCESS;
}
EXPORT int cuCtxGetCurrent(void **context) { *context = depth == 0 ? NULL : stack[depth - 1]; return SUCCESS; }
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
  if (strstr(from->text, entry) == NULL) return NOT_FOUND;
  note("cuModuleGetFunction %s", name);
  Function *made = (Function *)calloc(1, sizeof(Function));
  made->module = from;
  snprintf(made->name, sizeof(made->name), "%s", name);
  *function = made;
  return SUCCESS;
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
  const uint32_t grid[] = {gx, gy, gz};
  return launch(found->module->text, found->name, grid, bx, stream, found->module->device, parameters);
}
EXPORT int cuMemGetInfo_v2(size_t *available, size_t *total) {
  BEGIN_IN_CONTEXT("cuMemGetInfo")
  note("cuMemGetInfo");
  *available = free_bytes;
  *total = free_bytes;
  return SUCCESS;
}

static int allocate(uint64_t *address, size_t size) {
  if (size > free_bytes || allocation_count == MAX_ALLOCATIONS) return OUT_OF_MEMORY;
  size_t rounded = (size + 255) / 256 * 256;
  char *memory = (char *)malloc(rounded + 256); /* never given back, so that a stale address is found */
  char *start = memory + (256 - (uintptr_t)memory % 256);
  memset(start, 0xFF, rounded); /* NaN in every dtype */
  Allocation made = {start, size, current_device(), 1};
  allocations[allocation_count++] = made;
  *address = (uint64_t)(uintptr_t)start;
  return SUCCESS;
}
static int release(uint64_t address) {
  for (int k = allocation_count - 1; k >= 0; --k) {
    if (allocations[k].owned && allocations[k].start == (char *)(uintptr_t)address) {
      memset(allocations[k].start, 0xFF, allocations[k].size);
      allocations[k].start = NULL;
      return SUCCESS;
    }
  }
  return INVALID_VALUE;
}
EXPORT int cuMemAlloc_v2(uint64_t *address, size_t size) {
  BEGIN_IN_CONTEXT("cuMemAlloc") note("cuMemAlloc %zu", size);
  return allocate(address, size);
}
EXPORT int cuMemFree_v2(uint64_t address) { BEGIN_IN_CONTEXT("cuMemFree") note("cuMemFree"); return release(address); }
EXPORT int cuMemAllocAsync(uint64_t *address, size_t size, void *stream) {
  BEGIN_IN_CONTEXT("cuMemAllocAsync")
  note("cuMemAllocAsync %zu stream=%llu", size, (unsigned long long)(uintptr_t)stream);
  return allocate(address, size);
}
EXPORT int cuMemFreeAsync(uint64_t address, void *stream) {
  BEGIN_IN_CONTEXT("cuMemFreeAsync")
  note("cuMemFreeAsync stream=%llu", (unsigned long long)(uintptr_t)stream);
  return release(address);
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t target, const void *source, size_t size, void *stream) {
  BEGIN_IN_CONTEXT("cuMemcpyHtoDAsync")
  note("cuMemcpyHtoDAsync %zu stream=%llu", size, (unsigned long long)(uintptr_t)stream);
  memcpy((void *)(uintptr_t)target, source, size);
  return SUCCESS;
}
EXPORT int cuMemcpyDtoHAsync_v2(void *target, uint64_t source, size_t size, void *stream) {
  BEGIN_IN_CONTEXT("cuMemcpyDtoHAsync")
  note("cuMemcpyDtoHAsync %zu stream=%llu", size, (unsigned long long)(uintptr_t)stream);
  if (pending_count == MAX_PENDING) return OUT_OF_MEMORY;
  /* What is copied is what the memory holds now: later launches of the stream come after it. */
  void *kept = malloc(size == 0 ? 1 : size);
  memcpy(kept, (const void *)(uintptr_t)source, size);
  Copy made = {target, kept, size, stream};
  pending[pending_count++] = made;
  return SUCCESS;
}
EXPORT int cuStreamSynchronize(void *stream) {
  BEGIN_IN_CONTEXT("cuStreamSynchronize")
  note("cuStreamSynchronize stream=%llu", (unsigned long long)(uintptr_t)stream);
  for (int k = 0; k < pending_count; ++k) {
    if (pending[k].stream != stream || pending[k].host == NULL) continue;
    memcpy(pending[k].host, pending[k].device, pending[k].size);
    free((void *)pending[k].device);
    pending[k].host = NULL;
  }
  while (pending_count > 0 && pending[pending_count - 1].host == NULL) --pending_count;
  return SUCCESS;
}
EXPORT int cuStreamWaitEvent(void *stream, void *event, unsigned int flags) {
  (void)event; (void)flags;
  note("cuStreamWaitEvent stream=%llu", (unsigned long long)(uintptr_t)stream);
  return SUCCESS;
}
EXPORT int cuEventCreate(void **event, unsigned int flags) { (void)flags; *event = malloc(1); return SUCCESS; }
EXPORT int cuEventRecord(void *event, void *stream) {
  (void)event;
  note("cuEventRecord stream=%llu", (unsigned long long)(uintptr_t)stream);
  return SUCCESS;
}
EXPORT int cuEventDestroy_v2(void *event) { free(event); return SUCCESS; }
EXPORT int cuGetErrorName(int result, const char **name) {
  *name = result == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : result == INVALID_PTX ? "CUDA_ERROR_INVALID_PTX"
                                                                                       : "CUDA_ERROR_OF_THE_STAND_IN";
  return SUCCESS;
}
EXPORT int cuGetErrorString(int result, const char **text) {
  *text = result == OUT_OF_MEMORY ? "out of memory" : "what the driver would say";
  return SUCCESS;
}
