#include "geometry.h"

#include <algorithm>

#include "checked_math.h"
#include "error.h"

namespace pylazy {
namespace {

constexpr int64_t kEnoughTiles = 64;           // columns are cut only while there are fewer tiles than this
constexpr int64_t kColumnBlock = 1024;         // cuts fall between the blocks of a two-level sum
constexpr int64_t kMaxLeastColumns = 8192;     // a cut of this size always pays
constexpr double kLeastSplitCycles = 1 << 17;  // about 40 us: the work that outweighs the merge of one more split
constexpr int kTableTiles = 0, kTablePairs = 1;  // words of a table
constexpr int64_t kMaxTiles = int64_t{1} << 61;  // leaves room for counters that run past the end

// The fewest columns worth a split of their own: cheap pairs need more of them.
int64_t least_columns_of_a_split(const plz_phase &phase) noexcept {
  const double column_cycles = static_cast<double>(phase.rows_per_tile) * phase.cost;
  if (column_cycles * kMaxLeastColumns <= kLeastSplitCycles) return kMaxLeastColumns;
  return round_up(1 + static_cast<int64_t>(kLeastSplitCycles / column_cycles), kColumnBlock);
}

int64_t choose_columns_per_split(const plz_phase &phase, int64_t columns, int64_t row_tasks) noexcept {
  int64_t chosen = columns;
  if (row_tasks < kEnoughTiles) {
    const int64_t wanted_splits = divide_up(kEnoughTiles, std::max<int64_t>(row_tasks, 1));
    const int64_t even_share = round_up(divide_up(columns, wanted_splits), kColumnBlock);
    chosen = std::max(even_share, least_columns_of_a_split(phase));
  }
  const int64_t limit = phase.max_columns_per_split;
  if (limit > 0 && std::min(chosen, columns) > limit) {
    chosen = limit < kColumnBlock ? limit : limit / kColumnBlock * kColumnBlock;
  }
  // Never zero, so that nobody divides by it.
  return std::max<int64_t>(std::min(chosen, columns), 1);
}

}  // namespace

int64_t axis_extent(int32_t axis, int64_t m, int64_t n) noexcept {
  if (axis == PLZ_AXIS_IJ) return saturating_multiply(m, n);
  return axis == PLZ_AXIS_I ? m : axis == PLZ_AXIS_J ? n : 1;
}

double tile_cycles(const plz_phase &phase, const plz_geometry &geometry, const int64_t *table) noexcept {
  if (table != nullptr) {
    const double pairs = static_cast<double>(table[kTablePairs]);
    return pairs / static_cast<double>(std::max<int64_t>(geometry.tiles, 1)) * phase.cost;
  }
  // A merge reads one state for each split.
  const int64_t columns = phase.merges ? geometry.splits : std::min(geometry.columns, geometry.columns_per_split);
  return static_cast<double>(phase.rows_per_tile) * static_cast<double>(columns) * phase.cost;
}

plz_status make_geometry(const plz_phase *phases, int phase_count, int64_t m, int64_t n, int64_t batch_count,
                         plz_geometry *geometry) noexcept {
  const plz_geometry *merged = nullptr;
  for (int index = 0; index < phase_count; ++index) {
    const plz_phase &phase = phases[index];
    plz_geometry &out = geometry[index];
    out.rows = axis_extent(phase.rows_axis, m, n);
    out.columns = axis_extent(phase.columns_axis, m, n);
    const int64_t row_tiles = divide_up(out.rows, phase.rows_per_tile);
    const int64_t row_tasks = saturating_multiply(row_tiles, batch_count);
    if (phase.merges) {
      out.columns_per_split = merged->columns_per_split;
      out.splits = merged->splits;
      out.tiles = merged->splits == 1 ? 0 : row_tiles;
    } else if (phase.splittable) {
      out.columns_per_split = choose_columns_per_split(phase, out.columns, row_tasks);
      out.splits = std::max<int64_t>(divide_up(out.columns, out.columns_per_split), 1);
      out.tiles = saturating_multiply(row_tiles, out.splits);
      merged = &out;
    } else {
      if (phase.max_columns_per_split > 0 && out.columns > phase.max_columns_per_split) {
        return fail(PLZ_UNSUPPORTED, "phase %d reduces %lld columns: this kernel takes at most %lld", index,
                    static_cast<long long>(out.columns), static_cast<long long>(phase.max_columns_per_split));
      }
      out.columns_per_split = std::max<int64_t>(out.columns, 1);
      out.splits = 1;
      out.tiles = phase.tile_table < 0 ? row_tiles : 0;
    }
    if (saturating_multiply(out.tiles, batch_count) > kMaxTiles) {
      return fail(PLZ_INVALID_ARGUMENT, "phase %d has more than 2^61 tiles for M = %lld, N = %lld and %lld batches",
                  index, static_cast<long long>(m), static_cast<long long>(n), static_cast<long long>(batch_count));
    }
  }
  return PLZ_OK;
}

plz_status take_tiles(const int64_t *table, int64_t batch_count, plz_geometry *geometry) noexcept {
  const int64_t tiles = table[kTableTiles];
  if (tiles < 0 || saturating_multiply(tiles, batch_count) > kMaxTiles) {
    return fail(PLZ_INVALID_ARGUMENT, "a table has %lld tiles, for %lld batches", static_cast<long long>(tiles),
                static_cast<long long>(batch_count));
  }
  geometry->tiles = tiles;
  return PLZ_OK;
}

}  // namespace pylazy
