#include "gpu_geometry.h"

#include <algorithm>

#include "checked_math.h"
#include "error.h"
#include "geometry.h"

namespace pylazy {
namespace {

constexpr int64_t kMaxGridX = (int64_t{1} << 31) - 1;
constexpr int64_t kLeastTilesOfASplit = 2;  // fewer are not worth a state that is written, read and merged
constexpr int64_t kMostSplits = 1024;       // a merge goes through all of them
constexpr int64_t kMostColumnsOfASplit = int64_t{1} << 30;  // inside of a split, column numbers have 32 bits

int64_t choose_columns_per_split(const plz_gpu_kernel &kernel, int64_t columns, int64_t blocks,
                                 int64_t processors) noexcept {
  const int64_t all = std::max<int64_t>(columns, 1);
  if (!kernel.splittable) return all;
  const int64_t room = processors * kernel.blocks_per_processor / std::max<int64_t>(blocks, 1);
  const int64_t wanted_splits = std::max<int64_t>(std::min(room, kMostSplits), 1);
  const int64_t tiles = divide_up(columns, kernel.tile_columns);
  const int64_t share = std::max(divide_up(tiles, wanted_splits), kLeastTilesOfASplit);
  return std::min({saturating_multiply(share, kernel.tile_columns), all, kMostColumnsOfASplit});
}

}  // namespace

plz_status make_gpu_geometry(const plz_gpu_kernel *kernels, int kernel_count, int64_t m, int64_t n,
                             const int64_t *tiles, int64_t processors, int64_t batch,
                             plz_gpu_geometry *geometry) noexcept {
  for (int index = 0; index < kernel_count; ++index) {
    const plz_gpu_kernel &kernel = kernels[index];
    plz_gpu_geometry &out = geometry[index];
    const int64_t rows = axis_extent(kernel.rows_axis, m, n);
    const int64_t columns = kernel.columns_axis == PLZ_AXIS_NONE ? 0 : axis_extent(kernel.columns_axis, m, n);
    out.row_blocks = kernel.tile_table < 0 ? divide_up(rows, kernel.rows_per_block) : tiles[kernel.tile_table];
    if (kernel.merges) {
      const plz_gpu_geometry &merged = geometry[index - 1];
      out.columns_per_split = merged.columns_per_split;
      out.splits = merged.splits;
      out.split_blocks = merged.splits > 1 ? 1 : 0;
    } else {
      const int64_t blocks = saturating_multiply(out.row_blocks, batch);
      out.columns_per_split = choose_columns_per_split(kernel, columns, blocks, processors);
      out.splits = std::max<int64_t>(divide_up(columns, out.columns_per_split), 1);
      out.split_blocks = out.splits;
    }
    if (out.row_blocks > kMaxGridX || out.split_blocks > kMaxGridYZ) {
      return fail(PLZ_UNSUPPORTED, "a launch on a GPU takes at most %lld blocks of rows and %lld splits, found %lld and "
                  "%lld for M = %lld, N = %lld: reduce a part at a time",
                  static_cast<long long>(kMaxGridX), static_cast<long long>(kMaxGridYZ),
                  static_cast<long long>(out.row_blocks), static_cast<long long>(out.split_blocks),
                  static_cast<long long>(m), static_cast<long long>(n));
    }
  }
  return PLZ_OK;
}

}  // namespace pylazy
