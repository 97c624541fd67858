// One launch: scratch memory, then every phase over all batch elements and tiles as one parallel loop.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "checked_math.h"
#include "error.h"
#include "geometry.h"
#include "program.h"
#include "thread_pool.h"

#if defined(_WIN32)
#  include <malloc.h>
#endif

namespace pylazy {
namespace {

constexpr int kMaxBatchRank = 64;
constexpr int64_t kAlignment = 64;                            // bytes: a cache line, and the widest vector
constexpr int64_t kScratchBudgetBytes = int64_t{256} << 20;   // beyond it batch elements run in groups
constexpr double kSerialCycles = 90e3;                        // about 30 us: less is not worth waking a thread
constexpr double kClaimCycles = 30e3;                         // about 10 us: the work worth one claim of tiles
constexpr int64_t kClaimsPerThread = 8;                       // enough claims to even out slow threads

struct FreeAligned {
  void operator()(void *memory) const noexcept {
#if defined(_WIN32)
    _aligned_free(memory);
#else
    std::free(memory);
#endif
  }
};
using AlignedMemory = std::unique_ptr<void, FreeAligned>;

AlignedMemory allocate_aligned(int64_t bytes) noexcept {
#if defined(_WIN32)
  return AlignedMemory(_aligned_malloc(static_cast<size_t>(bytes), kAlignment));
#else
  void *memory = nullptr;
  return AlignedMemory(posix_memalign(&memory, kAlignment, static_cast<size_t>(bytes)) == 0 ? memory : nullptr);
#endif
}

struct Batch {
  int rank = 0;
  const int64_t *sizes = nullptr;
  int64_t count = 1;
};

// Where each buffer of a program lies for each batch element.
struct BufferPlan {
  int count = 0;
  char *base[PLZ_MAX_BUFFERS];
  const int64_t *strides[PLZ_MAX_BUFFERS];    // bytes for each batch dimension; null for scratch
  int64_t scratch_offset[PLZ_MAX_BUFFERS];    // in the scratch of one batch element; -1: not scratch, or not needed
  int64_t scratch_bytes = 0;                  // of one batch element

  void pointers_of(const Batch &batch, int64_t element, int64_t scratch_slot, void **pointers) const noexcept {
    for (int k = 0; k < count; ++k) {
      pointers[k] = scratch_offset[k] < 0 ? base[k] : base[k] + scratch_slot * scratch_bytes + scratch_offset[k];
    }
    for (int dimension = batch.rank - 1; dimension >= 0; --dimension) {
      const int64_t index = element % batch.sizes[dimension];
      element /= batch.sizes[dimension];
      if (index == 0) continue;
      for (int k = 0; k < count; ++k) {
        if (strides[k] != nullptr) pointers[k] = static_cast<char *>(pointers[k]) + index * strides[k][dimension];
      }
    }
  }
};

// One phase over the batch elements [first_element, ...): the context of the parallel loop.
struct PhaseLoop {
  plz_entry entry;
  int64_t extents[4];
  int64_t tiles;  // of one batch element
  int64_t first_element;
  const Batch *batch;
  const BufferPlan *plan;

  // Tile t of the loop is tile t % tiles of batch element first_element + t / tiles.
  static void compute(void *context, int64_t begin, int64_t end) {
    const PhaseLoop &loop = *static_cast<const PhaseLoop *>(context);
    void *pointers[PLZ_MAX_BUFFERS];
    int64_t slot = begin / loop.tiles;
    int64_t tile = begin % loop.tiles;
    while (begin < end) {
      const int64_t tiles = std::min(loop.tiles - tile, end - begin);
      loop.plan->pointers_of(*loop.batch, loop.first_element + slot, slot, pointers);
      loop.entry(pointers, loop.extents, tile, tile + tiles);
      begin += tiles;
      tile = 0;
      ++slot;
    }
  }
};

const int64_t *table_of(const plz_phase &phase, const BufferPlan &plan) noexcept {
  return phase.tile_table < 0 ? nullptr : reinterpret_cast<const int64_t *>(plan.base[phase.tile_table]);
}

plz_status check_batch(int32_t rank, const int64_t *sizes, Batch *batch) noexcept {
  if (rank < 0 || rank > kMaxBatchRank) {
    return fail(PLZ_INVALID_ARGUMENT, "launch has %d batch dimensions: expected at most %d", static_cast<int>(rank),
                kMaxBatchRank);
  }
  batch->rank = rank;
  batch->sizes = sizes;
  bool is_empty = false;
  for (int dimension = 0; dimension < rank; ++dimension) {
    if (sizes[dimension] < 0) {
      return fail(PLZ_INVALID_ARGUMENT, "batch dimension %d has size %lld", dimension,
                  static_cast<long long>(sizes[dimension]));
    }
    is_empty = is_empty || sizes[dimension] == 0;
    batch->count = saturating_multiply(batch->count, sizes[dimension]);
  }
  if (is_empty) batch->count = 0;
  if (batch->count == kInt64Max) return fail(PLZ_INVALID_ARGUMENT, "launch has more than 2^63 batch elements");
  return PLZ_OK;
}

// Columns are cut differently in different phases: the most splits that anybody stores.
int64_t most_splits(const plz_program &program, const plz_geometry *geometry) noexcept {
  int64_t splits = 1;
  for (int phase = 0; phase < program.phase_count; ++phase) splits = std::max(splits, geometry[phase].splits);
  return splits;
}

plz_status plan_buffers(const plz_program &program, const plz_geometry *geometry, void *const *arguments, int64_t m,
                        int64_t n, const Batch &batch, const int64_t *batch_strides, BufferPlan *plan) noexcept {
  plan->count = program.buffer_count;
  const int64_t splits = most_splits(program, geometry);
  int64_t argument = 0;
  for (int k = 0; k < program.buffer_count; ++k) {
    const plz_buffer &buffer = program.buffers.get()[k];
    const int64_t rows = axis_extent(buffer.axis, m, n);
    plan->base[k] = nullptr;
    plan->strides[k] = nullptr;
    plan->scratch_offset[k] = -1;
    if (buffer.role != PLZ_ROLE_SCRATCH) {
      plan->base[k] = static_cast<char *>(arguments[argument]);
      plan->strides[k] = batch_strides + argument * batch.rank;
      ++argument;
      if (plan->base[k] == nullptr && rows > 0) {
        return fail(PLZ_INVALID_ARGUMENT, "buffer %d is null, with %lld rows", k, static_cast<long long>(rows));
      }
      continue;
    }
    if (buffer.per_split && splits == 1) continue;  // one split writes its result in place: nothing to merge
    const int64_t arrays = buffer.per_split ? splits : 1;
    const int64_t bytes = saturating_multiply(saturating_multiply(arrays, rows), buffer.row_bytes);
    plan->scratch_offset[k] = plan->scratch_bytes;
    plan->scratch_bytes = saturating_add(plan->scratch_bytes, round_up(std::max<int64_t>(bytes, 1), kAlignment));
  }
  if (plan->scratch_bytes > kInt64Max / 2) {
    return fail(PLZ_OUT_OF_MEMORY, "launch needs more than 2^62 bytes of scratch memory");
  }
  return PLZ_OK;
}

void run_phase(const plz_program &program, int index, const plz_geometry &geometry, const Batch &batch,
               int64_t first_element, int64_t elements, const BufferPlan &plan) {
  if (geometry.tiles == 0) return;  // no rows, or nothing to merge
  const plz_phase &phase = program.phases.get()[index];
  PhaseLoop loop{program.code.function_at<plz_entry>(phase.entry),
                 {geometry.rows, geometry.columns, geometry.columns_per_split, geometry.splits},
                 geometry.tiles,
                 first_element,
                 &batch,
                 &plan};
  const int64_t tiles = geometry.tiles * elements;
  const double cycles = std::max(tile_cycles(phase, geometry, table_of(phase, plan)), 1.0);
  if (cycles * static_cast<double>(tiles) < kSerialCycles) {
    PhaseLoop::compute(&loop, 0, tiles);
    return;
  }
  const int64_t even_share = divide_up(tiles, kClaimsPerThread * thread_count());
  const int64_t worthwhile = 1 + static_cast<int64_t>(kClaimCycles / cycles);
  parallel_for(tiles, std::min(even_share, worthwhile), PhaseLoop::compute, &loop);
}

plz_status run(const plz_program &program, void *const *arguments, int64_t m, int64_t n, int32_t batch_rank,
               const int64_t *batch_sizes, const int64_t *batch_strides) {
  if (m < 0 || n < 0) {
    return fail(PLZ_INVALID_ARGUMENT, "launch has M = %lld, N = %lld", static_cast<long long>(m),
                static_cast<long long>(n));
  }
  Batch batch;
  if (const plz_status status = check_batch(batch_rank, batch_sizes, &batch)) return status;
  if (batch.count == 0) return PLZ_OK;

  constexpr int kUsualPhases = 16;
  plz_geometry usual[kUsualPhases];
  std::unique_ptr<plz_geometry[]> many;
  plz_geometry *geometry = usual;
  if (program.phase_count > kUsualPhases) {
    many = std::make_unique<plz_geometry[]>(static_cast<size_t>(program.phase_count));
    geometry = many.get();
  }
  if (const plz_status status =
          make_geometry(program.phases.get(), program.phase_count, m, n, batch.count, geometry)) {
    return status;
  }

  BufferPlan plan;
  if (const plz_status status = plan_buffers(program, geometry, arguments, m, n, batch, batch_strides, &plan)) {
    return status;
  }
  for (int phase = 0; phase < program.phase_count; ++phase) {
    const int64_t *table = table_of(program.phases.get()[phase], plan);
    if (table == nullptr) continue;
    if (const plz_status status = take_tiles(table, batch.count, &geometry[phase])) return status;
  }
  int64_t group = batch.count;
  AlignedMemory scratch;
  if (plan.scratch_bytes > 0) {
    group = std::min(group, std::max<int64_t>(kScratchBudgetBytes / plan.scratch_bytes, 1));
    scratch = allocate_aligned(group * plan.scratch_bytes);
    if (scratch == nullptr) {
      return fail(PLZ_OUT_OF_MEMORY, "not enough memory: launch needs %lld bytes of scratch for M = %lld, N = %lld",
                  static_cast<long long>(group * plan.scratch_bytes), static_cast<long long>(m),
                  static_cast<long long>(n));
    }
    for (int k = 0; k < plan.count; ++k) {
      if (plan.scratch_offset[k] >= 0) plan.base[k] = static_cast<char *>(scratch.get());
    }
  }
  for (int64_t first = 0; first < batch.count; first += group) {
    const int64_t elements = std::min(group, batch.count - first);
    for (int phase = 0; phase < program.phase_count; ++phase) {
      run_phase(program, phase, geometry[phase], batch, first, elements, plan);
    }
  }
  return PLZ_OK;
}

}  // namespace
}  // namespace pylazy

extern "C" int32_t plz_run(const plz_program *program, void *const *pointers, int64_t m, int64_t n,
                           int32_t batch_rank, const int64_t *batch_sizes, const int64_t *batch_strides) {
  try {
    return pylazy::run(*program, pointers, m, n, batch_rank, batch_sizes, batch_strides);
  } catch (const std::bad_alloc &) {
    return pylazy::fail(PLZ_OUT_OF_MEMORY, "not enough memory for a launch");
  } catch (...) {
    return pylazy::fail(PLZ_SYSTEM_ERROR, "unexpected failure in a launch");
  }
}

extern "C" int32_t plz_run_one(const plz_launch *launch) {
  return plz_run(launch->program, launch->pointers, launch->m, launch->n, 0, nullptr, nullptr);
}
