#include "cuda_driver.h"

#include <atomic>
#include <cstdlib>
#include <mutex>

#include "error.h"

#if defined(_WIN32)
#  define WIN32_LEAN_AND_MEAN
#  include <windows.h>
#else
#  include <dlfcn.h>
#endif

namespace pylazy {
namespace {

constexpr const char *kVariable = "PYLAZY_CUDA_DRIVER";

#if defined(_WIN32)
constexpr const char *kLibrary = "nvcuda.dll";

void *open_library(const char *name) noexcept {
  return reinterpret_cast<void *>(LoadLibraryExA(name, nullptr, LOAD_LIBRARY_SEARCH_DEFAULT_DIRS));
}

void *find_symbol(void *library, const char *name) noexcept {
  return reinterpret_cast<void *>(GetProcAddress(static_cast<HMODULE>(library), name));
}
#else
constexpr const char *kLibrary = "libcuda.so.1";

void *open_library(const char *name) noexcept { return dlopen(name, RTLD_NOW | RTLD_LOCAL); }

void *find_symbol(void *library, const char *name) noexcept { return dlsym(library, name); }
#endif

// Held while the driver is looked for and while a device is opened.
std::mutex opening;
CudaDriver loaded;
std::atomic<const CudaDriver *> found{nullptr};

CudaDevice devices[kMaxDevices];
std::atomic<bool> is_open[kMaxDevices];

plz_status load_driver() noexcept {
  const char *chosen = std::getenv(kVariable);
  const char *name = chosen != nullptr && chosen[0] != '\0' ? chosen : kLibrary;
  void *library = open_library(name);
  if (library == nullptr) return fail(PLZ_NO_DEVICE, "there is no CUDA driver: %s cannot be loaded", name);
#define PLZ_FIND(member, symbol, parameters) \
  loaded.member = reinterpret_cast<CuResult(*) parameters>(find_symbol(library, symbol));
#define PLZ_REQUIRE(member, symbol, parameters) \
  PLZ_FIND(member, symbol, parameters)          \
  if (loaded.member == nullptr) return fail(PLZ_NO_DEVICE, "the CUDA driver %s has no function %s", name, symbol);
  PLZ_CUDA_FUNCTIONS(PLZ_REQUIRE)
  PLZ_CUDA_LATER_FUNCTIONS(PLZ_FIND)
#undef PLZ_REQUIRE
#undef PLZ_FIND
  const CuResult result = loaded.init(0);
  if (result != kCudaSuccess) {
    fail_cuda(loaded, result, "starting the CUDA driver");
    return PLZ_NO_DEVICE;
  }
  return PLZ_OK;
}

}  // namespace

const CudaDriver *find_cuda_driver() noexcept {
  if (const CudaDriver *driver = found.load(std::memory_order_acquire)) return driver;
  const std::lock_guard<std::mutex> lock(opening);
  if (found.load(std::memory_order_relaxed) == nullptr) {
    if (load_driver() != PLZ_OK) return nullptr;
    found.store(&loaded, std::memory_order_release);
  }
  return &loaded;
}

plz_status fail_cuda(const CudaDriver &driver, CuResult result, const char *action) noexcept {
  const char *name = nullptr;
  const char *text = nullptr;
  if (driver.get_error_name(result, &name) != kCudaSuccess || name == nullptr) name = "an unknown error";
  if (driver.get_error_string(result, &text) != kCudaSuccess || text == nullptr) text = "no text";
  const plz_status status = result == kCudaOutOfMemory ? PLZ_OUT_OF_MEMORY : PLZ_DEVICE_ERROR;
  return fail(status, "%s failed with %s (%d): %s", action, name, result, text);
}

plz_status open_device(int32_t number, CudaDevice *device) noexcept {
  if (number >= 0 && number < kMaxDevices && is_open[number].load(std::memory_order_acquire)) {
    *device = devices[number];
    return PLZ_OK;
  }
  const CudaDriver *driver = find_cuda_driver();
  if (driver == nullptr) return PLZ_NO_DEVICE;
  int count = 0;
  const CuResult counted = driver->device_get_count(&count);
  if (counted != kCudaSuccess && counted != kCudaNoDevice) return fail_cuda(*driver, counted, "counting GPUs");
  if (number < 0 || number >= count || number >= kMaxDevices) {
    return fail(PLZ_NO_DEVICE, "there is no GPU %d: this machine has %d", static_cast<int>(number), count);
  }
  const std::lock_guard<std::mutex> lock(opening);
  if (!is_open[number].load(std::memory_order_relaxed)) {
    CudaDevice &opened = devices[number];
    opened.driver = driver;
    if (const CuResult result = driver->device_get(&opened.handle, number)) {
      return fail_cuda(*driver, result, "opening a GPU");
    }
    if (const CuResult result = driver->primary_context_retain(&opened.context, opened.handle)) {
      return fail_cuda(*driver, result, "retaining the primary context of a GPU");
    }
    is_open[number].store(true, std::memory_order_release);
  }
  *device = devices[number];
  return PLZ_OK;
}

CurrentContext::CurrentContext(const CudaDevice &device) noexcept : driver_(*device.driver) {
  CuContext current = nullptr;
  // Nearly always the libraries of the process have made it current before.
  if (driver_.context_get_current(&current) == kCudaSuccess && current == device.context) return;
  if (const CuResult result = driver_.context_push(device.context)) {
    status_ = fail_cuda(driver_, result, "making the context of a GPU current");
    return;
  }
  is_pushed_ = true;
}

CurrentContext::~CurrentContext() {
  CuContext popped = nullptr;
  if (is_pushed_) driver_.context_pop(&popped);
}

}  // namespace pylazy
