// How a launch on a GPU is cut into grids.
#ifndef PYLAZY_GPU_GEOMETRY_H
#define PYLAZY_GPU_GEOMETRY_H

#include <cstdint>

#include "pylazy_runtime.h"

namespace pylazy {

// The most blocks along y and z ("CUDA C++ Programming Guide", table of technical specifications).
constexpr int64_t kMaxGridYZ = 65535;

// Choose the grid of every kernel, in their order, for launches that cover `batch` elements.
//
// As many splits as fill the processors: a split writes its unfinished states to scratch, and the next kernel merges
// them. tiles: for each buffer that is a table, the tiles that it lists; null without tables.
plz_status make_gpu_geometry(const plz_gpu_kernel *kernels, int kernel_count, int64_t m, int64_t n,
                             const int64_t *tiles, int64_t processors, int64_t batch,
                             plz_gpu_geometry *geometry) noexcept;

}  // namespace pylazy

#endif
