// A parallel loop over tiles.
#ifndef PYLAZY_THREAD_POOL_H
#define PYLAZY_THREAD_POOL_H

#include <cstdint>

namespace pylazy {

// Computes the tiles [begin, end).
using TileFunction = void (*)(void *context, int64_t begin, int64_t end);

// Threads that share one loop, the caller included.
int thread_count() noexcept;
void set_thread_count(int count) noexcept;

// Compute the tiles [0, count), `grain` at a time, on the caller and on idle workers; returns when all are computed.
void parallel_for(int64_t count, int64_t grain, TileFunction function, void *context);

}  // namespace pylazy

#endif
