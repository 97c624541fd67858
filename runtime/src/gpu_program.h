// A program of GPU kernels, and what the driver has loaded of it on each device.
#ifndef PYLAZY_GPU_PROGRAM_H
#define PYLAZY_GPU_PROGRAM_H

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cuda_driver.h"
#include "pylazy_runtime.h"

namespace pylazy {

// The kernels of a program, in its order, on one device.
using LoadedKernels = std::vector<CuFunction>;

}  // namespace pylazy

struct plz_gpu_program {
  std::string ptx;
  std::string cubin;
  std::vector<plz_buffer> buffers;
  std::vector<plz_gpu_kernel> kernels;  // their names are those of `names`
  std::vector<std::string> names;

  // Set once for each device, under the mutex.
  std::atomic<const pylazy::LoadedKernels *> loaded[pylazy::kMaxDevices] = {};
  std::mutex loading;

  ~plz_gpu_program() {
    for (auto &kernels_of_device : loaded) delete kernels_of_device.load();
  }
};

namespace pylazy {

// The kernels of a program on a device whose context is current; they are loaded by the first call.
plz_status load_kernels(plz_gpu_program *program, int32_t number, const CudaDevice &device,
                        const LoadedKernels **kernels);

}  // namespace pylazy

#endif
