/* Stands in for the CUDA runtime of version 13 in tests: a thin layer over the stand-in driver, for torch.
 *
 * Kernels of torch do not run here, their names are told: stand_in_torch.py computes torch's operations on the host.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stand_in.h"

enum { NOT_SUPPORTED = 801, MAX_DEVICES = 8, MAX_KERNELS = 1 << 18 };

/* The driver. */
int cuInit(unsigned int), cuDriverGetVersion(int *), cuDeviceGetCount(int *), cuDeviceGetAttribute(int *, int, int);
int cuDeviceGetName(char *, int, int), cuDeviceTotalMem_v2(size_t *, int), cuDevicePrimaryCtxRetain(void **, int);
int cuCtxGetCurrent(void **), cuCtxSetCurrent(void *), cuCtxSynchronize(void);
int cuMemAlloc_v2(uint64_t *, size_t), cuMemFree_v2(uint64_t), cuMemGetInfo_v2(size_t *, size_t *);
int cuMemAllocAsync(uint64_t *, size_t, void *), cuMemFreeAsync(uint64_t, void *);
int cuMemHostAlloc(void **, size_t, unsigned int), cuMemFreeHost(void *);
int cuMemcpyAsync(uint64_t, uint64_t, size_t, void *), cuMemsetD8Async(uint64_t, unsigned char, size_t, void *);
int cuPointerGetAttribute(void *, int, uint64_t);
int cuStreamCreateWithPriority(void **, unsigned int, int), cuStreamDestroy_v2(void *), cuStreamSynchronize(void *);
int cuStreamQuery(void *), cuStreamWaitEvent(void *, void *, unsigned int), cuStreamBeginCapture_v2(void *, int);
int cuStreamEndCapture(void *, void **), cuStreamIsCapturing(void *, int *), cuThreadExchangeStreamCaptureMode(int *);
int cuStreamGetCaptureInfo_v3(void *, int *, uint64_t *, void **, const void **, const void **, size_t *);
int cuLaunchHostFunc(void *, void (*)(void *), void *);
int cuEventCreate(void **, unsigned int), cuEventDestroy_v2(void *), cuEventRecord(void *, void *);
int cuEventQuery(void *), cuEventSynchronize(void *), cuEventElapsedTime_v2(float *, void *, void *);
int cuGraphGetNodes(void *, void **, size_t *), cuGraphInstantiateWithFlags(void **, void *, unsigned long long);
int cuGraphLaunch(void *, void *), cuGraphDestroy(void *), cuGraphExecDestroy(void *);
int cuGetErrorName(int, const char **), cuGetErrorString(int, const char **);

static void *contexts[MAX_DEVICES];
static __thread int last_error;
static struct { const void *function; const char *name; } kernels[MAX_KERNELS];
static int kernel_count;

static int told(int result) {
  if (result != SUCCESS) last_error = result;
  return result;
}
/* Make a context current in a thread that has none, as the runtime does before most calls. */
static int begin(void) {
  void *current = NULL;
  cuCtxGetCurrent(&current);
  if (current != NULL) return SUCCESS;
  const int status = contexts[0] == NULL ? cuDevicePrimaryCtxRetain(&contexts[0], 0) : SUCCESS;
  return status != SUCCESS ? status : cuCtxSetCurrent(contexts[0]);
}

/* The functions that do what one of the driver does. */
#define FORWARD(name, parameters, call)                 \
  EXPORT int name parameters {                          \
    const int begun = begin();                         \
    return told(begun != SUCCESS ? begun : call);     \
  }
FORWARD(cudaDriverGetVersion, (int *version), cuDriverGetVersion(version))
FORWARD(cudaRuntimeGetVersion, (int *version), cuDriverGetVersion(version))
FORWARD(cudaDeviceSynchronize, (void), cuCtxSynchronize())
FORWARD(cudaMalloc, (void **address, size_t size), cuMemAlloc_v2((uint64_t *)address, size))
FORWARD(cudaFree, (void *address), address == NULL ? SUCCESS : cuMemFree_v2((uint64_t)(uintptr_t)address))
FORWARD(cudaMallocAsync, (void **address, size_t size, void *stream), cuMemAllocAsync((uint64_t *)address, size, stream))
FORWARD(cudaFreeAsync, (void *address, void *stream), cuMemFreeAsync((uint64_t)(uintptr_t)address, stream))
FORWARD(cudaHostAlloc, (void **address, size_t size, unsigned int flags), cuMemHostAlloc(address, size, flags))
FORWARD(cudaFreeHost, (void *address), cuMemFreeHost(address))
FORWARD(cudaMemGetInfo, (size_t *available, size_t *total), cuMemGetInfo_v2(available, total))
FORWARD(cudaMemcpyAsync, (void *target, const void *source, size_t size, int kind, void *stream),
        ((void)kind, cuMemcpyAsync((uint64_t)(uintptr_t)target, (uint64_t)(uintptr_t)source, size, stream)))
FORWARD(cudaMemcpyPeerAsync, (void *target, int to, const void *source, int from, size_t size, void *stream),
        ((void)to, (void)from, cuMemcpyAsync((uint64_t)(uintptr_t)target, (uint64_t)(uintptr_t)source, size, stream)))
FORWARD(cudaMemsetAsync, (void *target, int value, size_t size, void *stream),
        cuMemsetD8Async((uint64_t)(uintptr_t)target, (unsigned char)value, size, stream))
FORWARD(cudaMemset, (void *target, int value, size_t size),
        cuMemsetD8Async((uint64_t)(uintptr_t)target, (unsigned char)value, size, NULL))
FORWARD(cudaStreamCreate, (void **stream), cuStreamCreateWithPriority(stream, 0, 0))
FORWARD(cudaStreamCreateWithFlags, (void **stream, unsigned int flags), cuStreamCreateWithPriority(stream, flags, 0))
FORWARD(cudaStreamCreateWithPriority, (void **stream, unsigned int flags, int priority),
        cuStreamCreateWithPriority(stream, flags, priority))
FORWARD(cudaStreamDestroy, (void *stream), cuStreamDestroy_v2(stream))
FORWARD(cudaStreamSynchronize, (void *stream), cuStreamSynchronize(stream))
FORWARD(cudaStreamQuery, (void *stream), cuStreamQuery(stream))
FORWARD(cudaStreamWaitEvent, (void *stream, void *event, unsigned int flags), cuStreamWaitEvent(stream, event, flags))
FORWARD(cudaStreamBeginCapture, (void *stream, int mode), cuStreamBeginCapture_v2(stream, mode))
FORWARD(cudaStreamEndCapture, (void *stream, void **graph), cuStreamEndCapture(stream, graph))
FORWARD(cudaStreamIsCapturing, (void *stream, int *status), cuStreamIsCapturing(stream, status))
FORWARD(cudaStreamGetCaptureInfo,
        (void *stream, int *status, uint64_t *id, void **graph, const void **dependencies, const void **edges,
         size_t *count),
        cuStreamGetCaptureInfo_v3(stream, status, id, graph, dependencies, edges, count))
FORWARD(cudaThreadExchangeStreamCaptureMode, (int *mode), cuThreadExchangeStreamCaptureMode(mode))
FORWARD(cudaLaunchHostFunc, (void *stream, void (*function)(void *), void *data),
        cuLaunchHostFunc(stream, function, data))
FORWARD(cudaEventCreate, (void **event), cuEventCreate(event, 0))
FORWARD(cudaEventCreateWithFlags, (void **event, unsigned int flags), cuEventCreate(event, flags))
FORWARD(cudaEventDestroy, (void *event), cuEventDestroy_v2(event))
FORWARD(cudaEventRecord, (void *event, void *stream), cuEventRecord(event, stream))
FORWARD(cudaEventRecordWithFlags, (void *event, void *stream, unsigned int flags),
        ((void)flags, cuEventRecord(event, stream)))
FORWARD(cudaEventQuery, (void *event), cuEventQuery(event))
FORWARD(cudaEventSynchronize, (void *event), cuEventSynchronize(event))
FORWARD(cudaEventElapsedTime, (float *milliseconds, void *start, void *end),
        cuEventElapsedTime_v2(milliseconds, start, end))
FORWARD(cudaGraphGetNodes, (void *graph, void **nodes, size_t *count), cuGraphGetNodes(graph, nodes, count))
FORWARD(cudaGraphInstantiateWithFlags, (void **executable, void *graph, unsigned long long flags),
        cuGraphInstantiateWithFlags(executable, graph, flags))
FORWARD(cudaGraphLaunch, (void *executable, void *stream), cuGraphLaunch(executable, stream))
FORWARD(cudaGraphDestroy, (void *graph), cuGraphDestroy(graph))
FORWARD(cudaGraphExecDestroy, (void *executable), cuGraphExecDestroy(executable))

EXPORT int cudaMemcpy(void *target, const void *source, size_t size, int kind) {
  const int status = cudaMemcpyAsync(target, source, size, kind, NULL);
  return status != SUCCESS ? status : cudaStreamSynchronize(NULL);
}

/* Devices. */

EXPORT int cudaGetDeviceCount(int *count) {
  const int status = cuInit(0);
  return told(status != SUCCESS ? status : cuDeviceGetCount(count));
}
EXPORT int cudaGetDevice(int *device) {
  *device = current_device() < 0 ? 0 : current_device();
  return SUCCESS;
}
EXPORT int cudaSetDevice(int device) {
  int count = 0;
  const int counted = cuDeviceGetCount(&count);
  if (counted != SUCCESS || device < 0 || device >= count) return told(INVALID_DEVICE);
  if (contexts[device] == NULL) cuDevicePrimaryCtxRetain(&contexts[device], device);
  return told(cuCtxSetCurrent(contexts[device]));
}
EXPORT int cudaDeviceGetAttribute(int *value, int attribute, int device) {
  if (cuDeviceGetAttribute(value, attribute, device) != SUCCESS) *value = 0;
  return SUCCESS;
}
EXPORT int cudaDeviceCanAccessPeer(int *can, int device, int peer) {
  (void)device; (void)peer;
  *can = 0;
  return SUCCESS;
}
EXPORT int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return SUCCESS; }
EXPORT int cudaDeviceGetPCIBusId(char *text, int size, int device) {
  snprintf(text, (size_t)size, "0000:%02x:00.0", device + 1);
  return SUCCESS;
}
/* The first fields of cudaDeviceProp, and the space of all. */
typedef struct {
  char name[256], uuid[16], luid[8];
  unsigned int mask;
  size_t total_bytes, block_bytes;
  int registers_of_block, warp_size;
  size_t pitch;
  int threads_of_block, most_threads[3], largest_grid[3];
  size_t constant_bytes;
  int major, minor;
  size_t texture_alignment, texture_pitch_alignment;
  int processors;
} Properties;
EXPORT int cudaGetDeviceProperties(void *properties, int device) {
  enum { BYTES = 1008, OF_THREADS = 604 }; /* of cudaDeviceProp, and where maxThreadsPerMultiProcessor lies */
  memset(properties, 0, BYTES);
  Properties *found = (Properties *)properties;
  cuDeviceGetName(found->name, sizeof(found->name), device);
  cuDeviceTotalMem_v2(&found->total_bytes, device);
  cuDeviceGetAttribute(&found->processors, 16, device);
  cuDeviceGetAttribute(&found->major, 75, device);
  cuDeviceGetAttribute(&found->minor, 76, device);
  found->uuid[0] = (char)(device + 1);
  found->block_bytes = 49152;
  found->registers_of_block = 65536;
  found->warp_size = 32;
  found->threads_of_block = 1024;
  const int threads[] = {1024, 1024, 64}, grid[] = {2147483647, 65535, 65535};
  memcpy(found->most_threads, threads, sizeof(threads));
  memcpy(found->largest_grid, grid, sizeof(grid));
  *(int *)((char *)properties + OF_THREADS) = 2048;
  return SUCCESS;
}

/* Memory. */

EXPORT int cudaPointerGetAttributes(void *attributes, const void *address) {
  enum { MEMORY_TYPE = 2, DEVICE_ORDINAL = 9 };
  struct { int type, device; void *on_device, *on_host; } found = {0, -2, NULL, (void *)(uintptr_t)address};
  if (cuPointerGetAttribute(&found.type, MEMORY_TYPE, (uint64_t)(uintptr_t)address) == SUCCESS) {
    cuPointerGetAttribute(&found.device, DEVICE_ORDINAL, (uint64_t)(uintptr_t)address);
    found.on_device = found.on_host;
  }
  memcpy(attributes, &found, sizeof(found));
  return SUCCESS;
}

/* Errors. */

EXPORT const char *cudaGetErrorName(int result) { const char *name; cuGetErrorName(result, &name); return name; }
EXPORT const char *cudaGetErrorString(int result) { const char *text; cuGetErrorString(result, &text); return text; }
EXPORT int cudaPeekAtLastError(void) { return last_error; }
EXPORT int cudaGetLastError(void) { const int found = last_error; last_error = SUCCESS; return found; }

/* Kernels of torch. */

EXPORT void **__cudaRegisterFatBinary(void *binary) { (void)binary; return (void **)calloc(1, sizeof(void *)); }
EXPORT void __cudaRegisterFatBinaryEnd(void **handle) { (void)handle; }
EXPORT void __cudaUnregisterFatBinary(void **handle) { (void)handle; }
EXPORT char __cudaInitModule(void **handle) { (void)handle; return 0; }
EXPORT void __cudaRegisterVar(void **handle, char *variable, char *address, const char *name, int is_external,
                              size_t size, int is_constant, int is_global) {
  (void)handle; (void)variable; (void)address; (void)name; (void)is_external; (void)size; (void)is_constant;
  (void)is_global;
}
EXPORT void __cudaRegisterFunction(void **handle, const char *function, char *on_device, const char *name, int limit,
                                   void *thread, void *block, void *block_size, void *grid_size, int *warp_size) {
  (void)handle; (void)on_device; (void)limit; (void)thread; (void)block; (void)block_size; (void)grid_size;
  (void)warp_size;
  if (kernel_count == MAX_KERNELS) return;
  kernels[kernel_count].function = function;
  kernels[kernel_count++].name = name;
}
static int refuse(const void *function) {
  const char *name = "a kernel that was not registered";
  for (int k = 0; k < kernel_count; ++k) {
    if (kernels[k].function == function) name = kernels[k].name;
  }
  fprintf(stderr, "the stand-in for the CUDA runtime cannot run %s: add the operation to stand_in_torch.py\n", name);
  return told(NOT_SUPPORTED);
}
EXPORT int cudaLaunchKernel(const void *function) { return refuse(function); } /* what follows is not read */
EXPORT int cudaLaunchCooperativeKernel(const void *function) { return refuse(function); }
EXPORT int cudaLaunchKernelExC(const void *configuration, const void *function) {
  (void)configuration;
  return refuse(function);
}
EXPORT int __cudaGetKernel(const void **kernel, const void *function) { *kernel = function; return SUCCESS; }
EXPORT int __cudaLaunchKernel(const void *kernel) { return refuse(kernel); }
EXPORT unsigned int __cudaPushCallConfiguration(void) { return 0; }
EXPORT int __cudaPopCallConfiguration(void) { return SUCCESS; }
EXPORT int cudaFuncSetAttribute(const void *function, int attribute, int value) {
  (void)function; (void)attribute; (void)value;
  return SUCCESS;
}
