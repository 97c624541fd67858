#include "gpu_program.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>

#include "error.h"
#include "gpu_geometry.h"
#include "program.h"

namespace pylazy {
namespace {

constexpr int kMaxKernels = 4096;
constexpr int kMaxThreads = 1024;
// Options of cuModuleLoadDataEx (cuda.h, CUjit_option).
constexpr int kJitErrorLog = 5, kJitErrorLogBytes = 6;
constexpr size_t kLogBytes = 3072;
constexpr int kRelaxedCaptures = 2;  // cuda.h, CU_STREAM_CAPTURE_MODE_RELAXED
// Attributes of devices (cuda.h, CUdevice_attribute).
constexpr int kClockKilohertz = 13, kProcessorCount = 16, kCapabilityMajor = 75, kCapabilityMinor = 76;

bool is_axis(int32_t axis) { return axis == PLZ_AXIS_NONE || axis == PLZ_AXIS_I || axis == PLZ_AXIS_J; }

bool is_well_formed(const plz_gpu_kernel &kernel, const plz_buffer *buffers, int buffer_count) {
  const bool has_table = kernel.tile_table >= 0;
  const bool is_table = !has_table || (kernel.tile_table < buffer_count && !kernel.merges &&
                                       buffers[kernel.tile_table].role == PLZ_ROLE_TABLE &&
                                       buffers[kernel.tile_table].axis == kernel.rows_axis);
  return kernel.name != nullptr && is_axis(kernel.rows_axis) && is_axis(kernel.columns_axis) &&
         kernel.rows_per_block > 0 && kernel.tile_columns > 0 && kernel.block_threads > 0 &&
         kernel.block_threads <= kMaxThreads && kernel.blocks_per_processor > 0 && is_table;
}

plz_status check_kernels(const plz_gpu_kernel *kernels, int count, const plz_buffer *buffers, int buffer_count) {
  if (count < 1 || count > kMaxKernels) {
    return fail(PLZ_INVALID_ARGUMENT, "GPU program has %d kernels: expected 1 to %d", count, kMaxKernels);
  }
  for (int index = 0; index < count; ++index) {
    const plz_gpu_kernel &kernel = kernels[index];
    if (!is_well_formed(kernel, buffers, buffer_count)) {
      return fail(PLZ_INVALID_ARGUMENT, "kernel %d of the GPU program is malformed", index);
    }
    const bool follows = index > 0 && kernels[index - 1].splittable && kernels[index - 1].rows_axis == kernel.rows_axis;
    if (kernel.merges && (kernel.splittable || !follows)) {
      return fail(PLZ_INVALID_ARGUMENT, "kernel %d merges, but the one before it is not splittable over the same rows",
                  index);
    }
  }
  return PLZ_OK;
}

plz_status create(const char *ptx, const void *cubin, int64_t cubin_bytes, const plz_buffer *buffers, int buffer_count,
                  const plz_gpu_kernel *kernels, int kernel_count, plz_gpu_program **program) {
  if (ptx == nullptr) return fail(PLZ_INVALID_ARGUMENT, "GPU program has no PTX");
  if (const plz_status status = check_buffers(buffers, buffer_count)) return status;
  if (const plz_status status = check_kernels(kernels, kernel_count, buffers, buffer_count)) return status;
  auto made = std::make_unique<plz_gpu_program>();
  made->ptx = ptx;
  if (cubin != nullptr) made->cubin.assign(static_cast<const char *>(cubin), static_cast<size_t>(cubin_bytes));
  made->buffers.assign(buffers, buffers + buffer_count);
  made->kernels.assign(kernels, kernels + kernel_count);
  for (int index = 0; index < kernel_count; ++index) made->names.emplace_back(kernels[index].name);
  for (int index = 0; index < kernel_count; ++index) {
    made->kernels[static_cast<size_t>(index)].name = made->names[static_cast<size_t>(index)].c_str();
  }
  *program = made.release();
  return PLZ_OK;
}

// While it lives, this thread may do what a capture of a stream forbids but does not rule out, as loading a module.
class RelaxedCaptures {
 public:
  explicit RelaxedCaptures(const CudaDriver &driver) noexcept : driver_(driver) { exchange(); }
  ~RelaxedCaptures() { exchange(); }
  RelaxedCaptures(const RelaxedCaptures &) = delete;
  RelaxedCaptures &operator=(const RelaxedCaptures &) = delete;

 private:
  void exchange() noexcept {
    if (driver_.exchange_capture_mode != nullptr) driver_.exchange_capture_mode(&mode_);
  }

  const CudaDriver &driver_;
  int mode_ = kRelaxedCaptures;
};

// The module from the cubin, which needs no compiler of the driver; else, as where the cubin is for another device, from
// the PTX, whose errors are those to tell.
plz_status load_module(const plz_gpu_program &program, int32_t number, const CudaDriver &driver, CuModule *module) {
  const RelaxedCaptures relaxed(driver);
  if (!program.cubin.empty() && driver.module_load(module, program.cubin.data(), 0, nullptr, nullptr) == kCudaSuccess) {
    return PLZ_OK;
  }
  char log[kLogBytes] = "";
  int options[] = {kJitErrorLog, kJitErrorLogBytes};
  void *values[] = {log, reinterpret_cast<void *>(kLogBytes)};
  const CuResult result = driver.module_load(module, program.ptx.c_str(), 2, options, values);
  if (result == kCudaSuccess) return PLZ_OK;
  const plz_status status = fail_cuda(driver, result, "loading a module");
  if (status == PLZ_OUT_OF_MEMORY) return status;
  char message[512];
  std::snprintf(message, sizeof(message), "%s", plz_last_error());
  if (result >= kCudaFirstOfCaptures && result <= kCudaLastOfCaptures) {
    return fail(status, "%s; this driver loads no code while a stream is captured: run the same call once before", message);
  }
  return fail(PLZ_COMPILE_ERROR, "%s; on GPU %d the driver's compiler says: %s", message, static_cast<int>(number),
              log[0] == '\0' ? "nothing" : log);
}

plz_status find_functions(const plz_gpu_program &program, const CudaDriver &driver, CuModule module,
                          LoadedKernels *functions) {
  for (const std::string &name : program.names) {
    CuFunction function = nullptr;
    if (const CuResult result = driver.module_get_function(&function, module, name.c_str())) {
      const std::string action = "finding the kernel " + name;
      return fail_cuda(driver, result, action.c_str());
    }
    functions->push_back(function);
  }
  return PLZ_OK;
}

plz_status read_properties(const CudaDevice &device, plz_gpu_properties *properties) {
  const CudaDriver &driver = *device.driver;
  *properties = plz_gpu_properties{};
  const struct {
    int attribute;
    int32_t *value;
  } wanted[] = {{kProcessorCount, &properties->processors},
                {kCapabilityMajor, &properties->major},
                {kCapabilityMinor, &properties->minor}};
  for (const auto &row : wanted) {
    if (const CuResult result = driver.device_get_attribute(row.value, row.attribute, device.handle)) {
      return fail_cuda(driver, result, "reading the properties of a GPU");
    }
  }
  if (driver.device_get_attribute(&properties->clock_kilohertz, kClockKilohertz, device.handle) != 0) {
    properties->clock_kilohertz = 0;
  }
  if (const CuResult result = driver.device_get_name(properties->name, sizeof(properties->name), device.handle)) {
    return fail_cuda(driver, result, "reading the name of a GPU");
  }
  return PLZ_OK;
}

}  // namespace

plz_status load_kernels(plz_gpu_program *program, int32_t number, const CudaDevice &device,
                        const LoadedKernels **kernels) {
  auto &slot = program->loaded[number];
  *kernels = slot.load(std::memory_order_acquire);
  if (*kernels != nullptr) return PLZ_OK;
  const std::lock_guard<std::mutex> lock(program->loading);
  *kernels = slot.load(std::memory_order_relaxed);
  if (*kernels != nullptr) return PLZ_OK;
  CuModule module = nullptr;
  if (const plz_status status = load_module(*program, number, *device.driver, &module)) return status;
  auto functions = std::make_unique<LoadedKernels>();
  if (const plz_status status = find_functions(*program, *device.driver, module, functions.get())) return status;
  *kernels = functions.release();
  slot.store(*kernels, std::memory_order_release);
  return PLZ_OK;
}

}  // namespace pylazy

extern "C" int32_t plz_gpu_device_count(int32_t *count) {
  *count = 0;
  const pylazy::CudaDriver *driver = pylazy::find_cuda_driver();
  if (driver == nullptr) return PLZ_OK;
  const pylazy::CuResult result = driver->device_get_count(count);
  if (result == pylazy::kCudaSuccess) return PLZ_OK;
  *count = 0;
  const plz_status status = pylazy::fail_cuda(*driver, result, "counting GPUs");
  return result == pylazy::kCudaNoDevice ? PLZ_OK : status;
}

extern "C" int32_t plz_gpu_device_properties(int32_t device, plz_gpu_properties *properties) {
  pylazy::CudaDevice opened;
  if (const plz_status status = pylazy::open_device(device, &opened)) return status;
  return pylazy::read_properties(opened, properties);
}

extern "C" int32_t plz_gpu_program_create(const char *ptx, const void *cubin, int64_t cubin_bytes,
                                          const plz_buffer *buffers, int32_t buffer_count,
                                          const plz_gpu_kernel *kernels, int32_t kernel_count,
                                          plz_gpu_program **program) {
  try {
    *program = nullptr;
    return pylazy::create(ptx, cubin, cubin_bytes, buffers, buffer_count, kernels, kernel_count, program);
  } catch (const std::bad_alloc &) {
    return pylazy::fail(PLZ_OUT_OF_MEMORY, "not enough memory for a GPU program");
  } catch (...) {
    return pylazy::fail(PLZ_SYSTEM_ERROR, "unexpected failure while a GPU program was described");
  }
}

extern "C" void plz_gpu_program_destroy(plz_gpu_program *program) { delete program; }

extern "C" int32_t plz_gpu_program_load(plz_gpu_program *program, int32_t device) {
  try {
    pylazy::CudaDevice opened;
    if (const plz_status status = pylazy::open_device(device, &opened)) return status;
    const pylazy::CurrentContext context(opened);
    if (context.status() != PLZ_OK) return context.status();
    const pylazy::LoadedKernels *kernels = nullptr;
    return pylazy::load_kernels(program, device, opened, &kernels);
  } catch (const std::bad_alloc &) {
    return pylazy::fail(PLZ_OUT_OF_MEMORY, "not enough memory to load a GPU program");
  } catch (...) {
    return pylazy::fail(PLZ_SYSTEM_ERROR, "unexpected failure while a GPU program was loaded");
  }
}
