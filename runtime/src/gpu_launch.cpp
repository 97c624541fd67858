// One launch on a GPU: where each buffer lies, which elements of the batch share a launch, then every kernel in order.
#include <algorithm>
#include <memory>
#include <new>

#include "checked_math.h"
#include "error.h"
#include "geometry.h"
#include "gpu_geometry.h"
#include "gpu_program.h"

namespace pylazy {
namespace {

constexpr int kMaxBatchRank = 64;
constexpr int kUsualKernels = 16;
constexpr int64_t kAlignment = 256;                          // bytes: what cuMemAlloc gives
constexpr int64_t kScratchBudgetBytes = int64_t{256} << 20;  // beyond it elements of a batch run in groups

// Dimensions of the batch after neighbours were joined whose elements lie at equal distances in every buffer.
struct JoinedBatch {
  int rank = 0;
  int64_t sizes[kMaxBatchRank];
  int innermost[kMaxBatchRank];  // the dimension of the caller whose strides are those of this one
  int64_t count = 1;
};

// Everything that is decided before a launch, by sizes alone.
struct LaunchPlan {
  JoinedBatch batch;
  int along_z = -1;  // the joined dimension that runs along z; -1: none
  int64_t group = 1;  // elements of it in one launch
  int64_t scratch_bytes = 0;  // of one element of a batch
  int64_t scratch_offset[PLZ_MAX_BUFFERS];  // -1: not scratch, or not needed
  plz_gpu_geometry usual[kUsualKernels];
  std::unique_ptr<plz_gpu_geometry[]> many;

  plz_gpu_geometry *geometry() { return many ? many.get() : usual; }
  int64_t size_along_z() const { return along_z < 0 ? 1 : batch.sizes[along_z]; }
};

bool can_be_joined(const plz_gpu_sizes &sizes, int arguments, int outer, int inner) noexcept {
  for (int argument = 0; argument < arguments; ++argument) {
    const int64_t *strides = sizes.batch_strides + static_cast<int64_t>(argument) * sizes.batch_rank;
    if (strides[outer] != sizes.batch_sizes[inner] * strides[inner]) return false;
  }
  return true;
}

plz_status join_batch(const plz_gpu_sizes &sizes, int arguments, JoinedBatch *batch) noexcept {
  if (sizes.m < 0 || sizes.n < 0 || sizes.batch_rank < 0 || sizes.batch_rank > kMaxBatchRank) {
    return fail(PLZ_INVALID_ARGUMENT, "launch has M = %lld, N = %lld and %d batch dimensions: expected at most %d",
                static_cast<long long>(sizes.m), static_cast<long long>(sizes.n), static_cast<int>(sizes.batch_rank),
                kMaxBatchRank);
  }
  for (int dimension = 0; dimension < sizes.batch_rank; ++dimension) {
    const int64_t size = sizes.batch_sizes[dimension];
    if (size < 0) return fail(PLZ_INVALID_ARGUMENT, "batch dimension %d is negative", dimension);
    batch->count = size == 0 ? 0 : saturating_multiply(batch->count, size);
    if (size == 1) continue;
    const int last = batch->rank - 1;
    if (last >= 0 && can_be_joined(sizes, arguments, batch->innermost[last], dimension)) {
      batch->sizes[last] *= size;
      batch->innermost[last] = dimension;
    } else {
      batch->sizes[batch->rank] = size;
      batch->innermost[batch->rank++] = dimension;
    }
  }
  if (batch->count == kInt64Max) return fail(PLZ_INVALID_ARGUMENT, "launch has more than 2^63 batch elements");
  return PLZ_OK;
}

int count_arguments(const plz_gpu_program &program) noexcept {
  return static_cast<int>(std::count_if(program.buffers.begin(), program.buffers.end(),
                                        [](const plz_buffer &buffer) { return buffer.role != PLZ_ROLE_SCRATCH; }));
}

// Tiles are counted by argument, and kernels name buffers.
void tiles_of_buffers(const plz_gpu_program &program, const int64_t *tiles, int64_t *of_buffer) noexcept {
  int argument = 0;
  for (size_t k = 0; k < program.buffers.size(); ++k) {
    const bool is_argument = program.buffers[k].role != PLZ_ROLE_SCRATCH;
    of_buffer[k] = is_argument && tiles != nullptr ? tiles[argument] : 0;
    argument += is_argument;
  }
}

void place_scratch(const plz_gpu_program &program, const plz_gpu_sizes &sizes, LaunchPlan *plan) noexcept {
  int64_t splits = 1;
  for (size_t index = 0; index < program.kernels.size(); ++index) {
    splits = std::max(splits, plan->geometry()[index].splits);
  }
  plan->scratch_bytes = 0;
  for (size_t k = 0; k < program.buffers.size(); ++k) {
    const plz_buffer &buffer = program.buffers[k];
    plan->scratch_offset[k] = -1;
    if (buffer.role != PLZ_ROLE_SCRATCH || (buffer.per_split && splits == 1)) continue;
    const int64_t rows = saturating_multiply(axis_extent(buffer.axis, sizes.m, sizes.n), buffer.per_split ? splits : 1);
    const int64_t bytes = round_up(saturating_multiply(rows, buffer.row_bytes), kAlignment);
    plan->scratch_offset[k] = plan->scratch_bytes;
    plan->scratch_bytes = saturating_add(plan->scratch_bytes, bytes);
  }
}

plz_status make_plan(const plz_gpu_program &program, const plz_gpu_sizes &sizes, LaunchPlan *plan) {
  if (const plz_status status = join_batch(sizes, count_arguments(program), &plan->batch)) return status;
  const JoinedBatch &batch = plan->batch;
  if (batch.rank > 0) {
    // The longest dimension runs along z, so that few launches do.
    plan->along_z = static_cast<int>(std::max_element(batch.sizes, batch.sizes + batch.rank) - batch.sizes);
  }
  plan->group = std::min(plan->size_along_z(), kMaxGridYZ);
  const int count = static_cast<int>(program.kernels.size());
  if (count > kUsualKernels) plan->many = std::make_unique<plz_gpu_geometry[]>(static_cast<size_t>(count));
  int64_t tiles[PLZ_MAX_BUFFERS];
  tiles_of_buffers(program, sizes.tiles, tiles);
  if (const plz_status status = make_gpu_geometry(program.kernels.data(), count, sizes.m, sizes.n, tiles,
                                                  sizes.processors, plan->group, plan->geometry())) {
    return status;
  }
  place_scratch(program, sizes, plan);
  if (plan->scratch_bytes > kInt64Max / (2 * kMaxGridYZ)) {
    return fail(PLZ_OUT_OF_MEMORY, "launch needs more than 2^46 bytes of scratch memory");
  }
  if (plan->scratch_bytes > 0) {
    plan->group = std::min(plan->group, std::max<int64_t>(kScratchBudgetBytes / plan->scratch_bytes, 1));
  }
  return PLZ_OK;
}

// The parameters of every kernel of a program, as the driver wants them: an address for each.
struct Parameters {
  static constexpr int kExtents = 4;
  char *pointers[PLZ_MAX_BUFFERS];
  int64_t strides[PLZ_MAX_BUFFERS];
  int64_t extents[kExtents];  // rows, columns, columns of a split, splits
  void *addresses[2 * PLZ_MAX_BUFFERS + kExtents];

  explicit Parameters(int buffers) noexcept {
    for (int k = 0; k < buffers; ++k) {
      addresses[k] = &pointers[k];
      addresses[buffers + k] = &strides[k];
    }
    for (int k = 0; k < kExtents; ++k) addresses[2 * buffers + k] = &extents[k];
  }
};

// One launch of a program: a plan, and where the data lies.
struct Launch {
  const plz_gpu_program &program;
  const plz_gpu_sizes &sizes;
  LaunchPlan &plan;
  const CudaDriver &driver;
  const LoadedKernels &functions;
  CuStream stream;
  void *const *arguments;
  char *scratch;

  // The addresses of all buffers for the element of these numbers, one for each joined dimension.
  void place_buffers(const int64_t *element, Parameters *parameters) const noexcept {
    const JoinedBatch &batch = plan.batch;
    int argument = 0;
    for (size_t k = 0; k < program.buffers.size(); ++k) {
      if (program.buffers[k].role == PLZ_ROLE_SCRATCH) {
        parameters->pointers[k] = plan.scratch_offset[k] < 0 ? nullptr : scratch + plan.scratch_offset[k];
        parameters->strides[k] = plan.scratch_bytes;
        continue;
      }
      char *pointer = static_cast<char *>(arguments[argument]);
      const int64_t *strides = sizes.batch_strides + static_cast<int64_t>(argument) * sizes.batch_rank;
      for (int d = 0; d < batch.rank; ++d) pointer += element[d] * strides[batch.innermost[d]];
      parameters->pointers[k] = pointer;
      parameters->strides[k] = plan.along_z < 0 ? 0 : strides[batch.innermost[plan.along_z]];
      ++argument;
    }
  }

  plz_status run_kernels(int64_t elements, Parameters *parameters) const noexcept {
    for (size_t index = 0; index < program.kernels.size(); ++index) {
      const plz_gpu_kernel &kernel = program.kernels[index];
      const plz_gpu_geometry &geometry = plan.geometry()[index];
      if (geometry.row_blocks == 0 || geometry.split_blocks == 0) continue;
      parameters->extents[0] = axis_extent(kernel.rows_axis, sizes.m, sizes.n);
      parameters->extents[1] = axis_extent(kernel.columns_axis, sizes.m, sizes.n);
      parameters->extents[2] = geometry.columns_per_split;
      parameters->extents[3] = geometry.splits;
      const CuResult result = driver.launch_kernel(
          functions[index], static_cast<unsigned>(geometry.row_blocks), static_cast<unsigned>(geometry.split_blocks),
          static_cast<unsigned>(elements), static_cast<unsigned>(kernel.block_threads), 1, 1, 0, stream,
          parameters->addresses, nullptr);
      if (result != kCudaSuccess) return fail_cuda(driver, result, "launching a kernel");
    }
    return PLZ_OK;
  }

  plz_status run() const noexcept {
    const JoinedBatch &batch = plan.batch;
    int64_t element[kMaxBatchRank] = {};
    Parameters parameters(static_cast<int>(program.buffers.size()));
    for (;;) {
      for (int64_t first = 0; first < plan.size_along_z(); first += plan.group) {
        if (plan.along_z >= 0) element[plan.along_z] = first;
        place_buffers(element, &parameters);
        const int64_t elements = std::min(plan.group, plan.size_along_z() - first);
        if (const plz_status status = run_kernels(elements, &parameters)) return status;
      }
      int d = batch.rank - 1;
      for (; d >= 0; --d) {
        if (d == plan.along_z) continue;
        if (++element[d] < batch.sizes[d]) break;
        element[d] = 0;
      }
      if (d < 0) return PLZ_OK;
    }
  }
};

plz_status launch(plz_gpu_program *program, int32_t number, CuStream stream, void *const *arguments, void *scratch,
                  const plz_gpu_sizes &sizes) {
  LaunchPlan plan;
  if (const plz_status status = make_plan(*program, sizes, &plan)) return status;
  if (plan.batch.count == 0) return PLZ_OK;
  if (plan.scratch_bytes > 0 && scratch == nullptr) return fail(PLZ_INVALID_ARGUMENT, "launch has no scratch memory");
  CudaDevice device;
  if (const plz_status status = open_device(number, &device)) return status;
  const CurrentContext context(device);
  if (context.status() != PLZ_OK) return context.status();
  const LoadedKernels *functions = nullptr;
  if (const plz_status status = load_kernels(program, number, device, &functions)) return status;
  const Launch made{*program, sizes, plan, *device.driver, *functions, stream, arguments, static_cast<char *>(scratch)};
  return made.run();
}

}  // namespace
}  // namespace pylazy

extern "C" int32_t plz_gpu_kernel_geometry(const plz_gpu_program *program, int32_t kernel, const plz_gpu_sizes *sizes,
                                           plz_gpu_geometry *geometry) {
  if (kernel < 0 || static_cast<size_t>(kernel) >= program->kernels.size()) {
    return pylazy::fail(PLZ_INVALID_ARGUMENT, "the GPU program has no kernel %d", static_cast<int>(kernel));
  }
  try {
    pylazy::LaunchPlan plan;
    if (const plz_status status = pylazy::make_plan(*program, *sizes, &plan)) return status;
    *geometry = plan.geometry()[kernel];
    return PLZ_OK;
  } catch (const std::bad_alloc &) {
    return pylazy::fail(PLZ_OUT_OF_MEMORY, "not enough memory for the geometry of a launch");
  }
}

extern "C" int32_t plz_gpu_scratch_bytes(const plz_gpu_program *program, const plz_gpu_sizes *sizes, int64_t *bytes) {
  try {
    pylazy::LaunchPlan plan;
    if (const plz_status status = pylazy::make_plan(*program, *sizes, &plan)) return status;
    *bytes = plan.scratch_bytes * plan.group;
    return PLZ_OK;
  } catch (const std::bad_alloc &) {
    return pylazy::fail(PLZ_OUT_OF_MEMORY, "not enough memory for the plan of a launch");
  }
}

extern "C" int32_t plz_gpu_launch(plz_gpu_program *program, int32_t device, void *stream, void *const *pointers,
                                  void *scratch, const plz_gpu_sizes *sizes) {
  try {
    return pylazy::launch(program, device, stream, pointers, scratch, *sizes);
  } catch (const std::bad_alloc &) {
    return pylazy::fail(PLZ_OUT_OF_MEMORY, "not enough memory for a launch");
  } catch (...) {
    return pylazy::fail(PLZ_SYSTEM_ERROR, "unexpected failure in a launch");
  }
}
