// How a phase is cut into tiles.
#ifndef PYLAZY_GEOMETRY_H
#define PYLAZY_GEOMETRY_H

#include <cstdint>

#include "pylazy_runtime.h"

namespace pylazy {

// Cycles that one tile of a phase takes, estimated; table: what lists the tiles, or null.
double tile_cycles(const plz_phase &phase, const plz_geometry &geometry, const int64_t *table) noexcept;

// Fill in the extents, splits and tiles of every phase for these extents.
//
// A pure function of its arguments. Never of the number of threads: where the columns are cut decides the order of
// additions, and a result must have the same bits on any machine with the same kernel. A phase with a table gets no tiles
// here: `take_tiles` reads them.
plz_status make_geometry(const plz_phase *phases, int phase_count, int64_t m, int64_t n, int64_t batch_count,
                         plz_geometry *geometry) noexcept;

// Take the number of tiles of a phase from its table.
plz_status take_tiles(const int64_t *table, int64_t batch_count, plz_geometry *geometry) noexcept;

// The rows of an axis.
int64_t axis_extent(int32_t axis, int64_t m, int64_t n) noexcept;

}  // namespace pylazy

#endif
