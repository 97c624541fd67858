// The CUDA driver: loaded when it is first needed, its functions looked up once, its errors turned into ours.
#ifndef PYLAZY_CUDA_DRIVER_H
#define PYLAZY_CUDA_DRIVER_H

#include <cstddef>
#include <cstdint>

#include "pylazy_runtime.h"

namespace pylazy {

// What cuda.h calls CUresult, CUdevice, CUcontext and so on; cuda.h itself is not needed to build this library.
using CuResult = int;
using CuDevice = int;
using CuAddress = unsigned long long;
using CuContext = void *;
using CuModule = void *;
using CuFunction = void *;
using CuStream = void *;
using CuEvent = void *;

constexpr CuResult kCudaSuccess = 0;
constexpr CuResult kCudaOutOfMemory = 2;
constexpr CuResult kCudaNoDevice = 100;
constexpr CuResult kCudaFirstOfCaptures = 900, kCudaLastOfCaptures = 908;  // CUDA_ERROR_STREAM_CAPTURE_...
constexpr int kMaxDevices = 64;

// One row for each function: its name here, its name in the library, its parameters. Names end in _v2 where cuda.h
// says so. Functions of the last list are missing from drivers before 11.2.
#define PLZ_CUDA_FUNCTIONS(ROW)                                                                                   \
  ROW(init, "cuInit", (unsigned int))                                                                             \
  ROW(device_get_count, "cuDeviceGetCount", (int *))                                                              \
  ROW(device_get, "cuDeviceGet", (CuDevice *, int))                                                               \
  ROW(device_get_name, "cuDeviceGetName", (char *, int, CuDevice))                                                \
  ROW(device_get_attribute, "cuDeviceGetAttribute", (int *, int, CuDevice))                                       \
  ROW(primary_context_retain, "cuDevicePrimaryCtxRetain", (CuContext *, CuDevice))                                \
  ROW(context_get_current, "cuCtxGetCurrent", (CuContext *))                                                      \
  ROW(context_push, "cuCtxPushCurrent_v2", (CuContext))                                                           \
  ROW(context_pop, "cuCtxPopCurrent_v2", (CuContext *))                                                           \
  ROW(module_load, "cuModuleLoadDataEx", (CuModule *, const void *, unsigned int, int *, void **))                \
  ROW(module_get_function, "cuModuleGetFunction", (CuFunction *, CuModule, const char *))                         \
  ROW(launch_kernel, "cuLaunchKernel",                                                                            \
      (CuFunction, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int,            \
       unsigned int, CuStream, void **, void **))                                                                 \
  ROW(memory_get_info, "cuMemGetInfo_v2", (size_t *, size_t *))                                                   \
  ROW(memory_allocate, "cuMemAlloc_v2", (CuAddress *, size_t))                                                    \
  ROW(memory_free, "cuMemFree_v2", (CuAddress))                                                                   \
  ROW(copy_to_device, "cuMemcpyHtoDAsync_v2", (CuAddress, const void *, size_t, CuStream))                        \
  ROW(copy_to_host, "cuMemcpyDtoHAsync_v2", (void *, CuAddress, size_t, CuStream))                                \
  ROW(stream_synchronize, "cuStreamSynchronize", (CuStream))                                                      \
  ROW(stream_wait_event, "cuStreamWaitEvent", (CuStream, CuEvent, unsigned int))                                  \
  ROW(event_create, "cuEventCreate", (CuEvent *, unsigned int))                                                   \
  ROW(event_record, "cuEventRecord", (CuEvent, CuStream))                                                         \
  ROW(event_destroy, "cuEventDestroy_v2", (CuEvent))                                                              \
  ROW(get_error_name, "cuGetErrorName", (CuResult, const char **))                                                \
  ROW(get_error_string, "cuGetErrorString", (CuResult, const char **))

#define PLZ_CUDA_LATER_FUNCTIONS(ROW)                                       \
  ROW(memory_allocate_async, "cuMemAllocAsync", (CuAddress *, size_t, CuStream)) \
  ROW(memory_free_async, "cuMemFreeAsync", (CuAddress, CuStream))                \
  ROW(exchange_capture_mode, "cuThreadExchangeStreamCaptureMode", (int *))

struct CudaDriver {
#define PLZ_MEMBER(member, name, parameters) CuResult (*member) parameters = nullptr;
  PLZ_CUDA_FUNCTIONS(PLZ_MEMBER)
  PLZ_CUDA_LATER_FUNCTIONS(PLZ_MEMBER)
#undef PLZ_MEMBER
};

// The driver, or null with a message of `fail(PLZ_NO_DEVICE, ...)`: there is no library, or it does not start. A driver
// that was found stays; one that was not is looked for again.
const CudaDriver *find_cuda_driver() noexcept;

// Keep a message that names what was done and what the driver says of it; gives the status for `result`.
plz_status fail_cuda(const CudaDriver &driver, CuResult result, const char *action) noexcept;

// A device with its primary context, which is the one that libraries share; it is retained once and never released.
struct CudaDevice {
  const CudaDriver *driver = nullptr;
  CuDevice handle = 0;
  CuContext context = nullptr;
};

plz_status open_device(int32_t number, CudaDevice *device) noexcept;

// Makes the primary context of a device current in this thread, and the one from before again at the end.
class CurrentContext {
 public:
  explicit CurrentContext(const CudaDevice &device) noexcept;
  ~CurrentContext();
  CurrentContext(const CurrentContext &) = delete;
  CurrentContext &operator=(const CurrentContext &) = delete;

  plz_status status() const noexcept { return status_; }

 private:
  const CudaDriver &driver_;
  bool is_pushed_ = false;
  plz_status status_ = PLZ_OK;
};

}  // namespace pylazy

#endif
