// Memory and streams of a device, for callers who have no library of their own for it.
#include "cuda_driver.h"
#include "error.h"

namespace pylazy {
namespace {

constexpr int kMemoryPoolsSupported = 115;  // cuda.h, CUdevice_attribute
constexpr unsigned int kEventDisableTiming = 2;

// Run an action of the driver in the context of a device.
template <typename Action>
plz_status on_device(int32_t number, const char *what, Action action) noexcept {
  CudaDevice device;
  if (const plz_status status = open_device(number, &device)) return status;
  const CurrentContext context(device);
  if (context.status() != PLZ_OK) return context.status();
  const CuResult result = action(*device.driver, device);
  return result == kCudaSuccess ? PLZ_OK : fail_cuda(*device.driver, result, what);
}

bool has_pools(const CudaDriver &driver, const CudaDevice &device) noexcept {
  int supported = 0;
  return driver.memory_allocate_async != nullptr && driver.memory_free_async != nullptr &&
         driver.device_get_attribute(&supported, kMemoryPoolsSupported, device.handle) == kCudaSuccess &&
         supported != 0;
}

CuAddress address_of(const void *pointer) noexcept { return reinterpret_cast<CuAddress>(pointer); }

CuResult wait(const CudaDriver &driver, CuStream waiting, CuStream awaited) noexcept {
  CuEvent event = nullptr;
  if (const CuResult result = driver.event_create(&event, kEventDisableTiming)) return result;
  CuResult result = driver.event_record(event, awaited);
  if (result == kCudaSuccess) result = driver.stream_wait_event(waiting, event, 0);
  // The driver frees the event when nothing waits for it any more.
  const CuResult destroyed = driver.event_destroy(event);
  return result != kCudaSuccess ? result : destroyed;
}

}  // namespace
}  // namespace pylazy

using pylazy::CuAddress;
using pylazy::CudaDevice;
using pylazy::CudaDriver;
using pylazy::CuResult;

extern "C" int32_t plz_gpu_memory(int32_t device, int64_t *free_bytes, int64_t *total_bytes) {
  size_t available = 0, total = 0;
  const plz_status status =
      pylazy::on_device(device, "reading the free memory of a GPU", [&](const CudaDriver &driver, const CudaDevice &) {
        return driver.memory_get_info(&available, &total);
      });
  *free_bytes = static_cast<int64_t>(available);
  *total_bytes = static_cast<int64_t>(total);
  return status;
}

extern "C" int32_t plz_gpu_allocate(int32_t device, void *stream, int64_t bytes, void **address) {
  CuAddress found = 0;
  const size_t size = static_cast<size_t>(bytes > 0 ? bytes : 1);
  const plz_status status = pylazy::on_device(
      device, "allocating memory of a GPU", [&](const CudaDriver &driver, const CudaDevice &opened) {
        return pylazy::has_pools(driver, opened) ? driver.memory_allocate_async(&found, size, stream)
                                                 : driver.memory_allocate(&found, size);
      });
  *address = reinterpret_cast<void *>(found);
  return status;
}

extern "C" int32_t plz_gpu_free(int32_t device, void *stream, void *address) {
  return pylazy::on_device(device, "freeing memory of a GPU",
                           [&](const CudaDriver &driver, const CudaDevice &opened) -> CuResult {
                             const CuAddress freed = pylazy::address_of(address);
                             if (pylazy::has_pools(driver, opened)) return driver.memory_free_async(freed, stream);
                             if (const CuResult result = driver.stream_synchronize(stream)) return result;
                             return driver.memory_free(freed);
                           });
}

extern "C" int32_t plz_gpu_copy_to_device(int32_t device, void *stream, void *address, const void *host,
                                          int64_t bytes) {
  return pylazy::on_device(device, "copying to a GPU", [&](const CudaDriver &driver, const CudaDevice &) {
    return driver.copy_to_device(pylazy::address_of(address), host, static_cast<size_t>(bytes), stream);
  });
}

extern "C" int32_t plz_gpu_copy_to_host(int32_t device, void *stream, void *host, const void *address, int64_t bytes) {
  return pylazy::on_device(device, "copying from a GPU", [&](const CudaDriver &driver, const CudaDevice &) {
    return driver.copy_to_host(host, pylazy::address_of(address), static_cast<size_t>(bytes), stream);
  });
}

extern "C" int32_t plz_gpu_synchronize(int32_t device, void *stream) {
  return pylazy::on_device(device, "waiting for a GPU", [&](const CudaDriver &driver, const CudaDevice &) {
    return driver.stream_synchronize(stream);
  });
}

extern "C" int32_t plz_gpu_wait(int32_t device, void *waiting_stream, void *awaited_stream) {
  if (waiting_stream == awaited_stream) return PLZ_OK;
  return pylazy::on_device(device, "ordering streams of a GPU", [&](const CudaDriver &driver, const CudaDevice &) {
    return pylazy::wait(driver, waiting_stream, awaited_stream);
  });
}
