#include "program.h"

#include <algorithm>
#include <cmath>
#include <new>

#include "error.h"
#include "geometry.h"

namespace pylazy {
namespace {

constexpr int kMaxPhases = 4096;

bool is_axis(int32_t axis) { return axis == PLZ_AXIS_NONE || axis == PLZ_AXIS_I || axis == PLZ_AXIS_J; }

bool is_table_of(const plz_phase &phase, const plz_buffer *buffers, int buffer_count) noexcept {
  if (phase.tile_table >= buffer_count || phase.splittable || phase.merges) return false;
  const plz_buffer &table = buffers[phase.tile_table];
  return table.role == PLZ_ROLE_TABLE && table.axis == phase.rows_axis;
}

plz_status check_phases(const plz_phase *phases, int count, const plz_buffer *buffers, int buffer_count,
                        int64_t code_bytes) noexcept {
  if (count < 1 || count > kMaxPhases) {
    return fail(PLZ_INVALID_ARGUMENT, "program has %d phases: expected 1 to %d", count, kMaxPhases);
  }
  const plz_phase *split = nullptr;
  for (int index = 0; index < count; ++index) {
    const plz_phase &phase = phases[index];
    if (phase.entry < 0 || phase.entry >= code_bytes) {
      return fail(PLZ_INVALID_ARGUMENT, "phase %d enters at byte %lld of %lld bytes of code", index,
                  static_cast<long long>(phase.entry), static_cast<long long>(code_bytes));
    }
    if (!is_axis(phase.rows_axis) || !is_axis(phase.columns_axis) || phase.rows_per_tile < 1 ||
        phase.max_columns_per_split < 0 || !std::isfinite(phase.cost) || phase.cost < 0) {
      return fail(PLZ_INVALID_ARGUMENT, "phase %d of the program is malformed", index);
    }
    if (phase.tile_table >= 0 && !is_table_of(phase, buffers, buffer_count)) {
      return fail(PLZ_INVALID_ARGUMENT, "phase %d cannot take its tiles from buffer %d", index,
                  static_cast<int>(phase.tile_table));
    }
    if (phase.merges && (phase.splittable || split == nullptr || split->rows_axis != phase.rows_axis)) {
      return fail(PLZ_INVALID_ARGUMENT, "phase %d merges, but no splittable phase over the same rows is before it",
                  index);
    }
    if (phase.splittable) split = &phase;
  }
  return PLZ_OK;
}

plz_status create(const void *code, int64_t code_bytes, const plz_buffer *buffers, int buffer_count,
                  const plz_phase *phases, int phase_count, plz_program **program) {
  if (code == nullptr || code_bytes <= 0) return fail(PLZ_INVALID_ARGUMENT, "program has no code");
  if (const plz_status status = check_buffers(buffers, buffer_count)) return status;
  if (const plz_status status = check_phases(phases, phase_count, buffers, buffer_count, code_bytes)) return status;
  auto made = std::make_unique<plz_program>();
  made->buffer_count = buffer_count;
  made->phase_count = phase_count;
  made->buffers = std::make_unique<plz_buffer[]>(static_cast<size_t>(buffer_count));
  made->phases = std::make_unique<plz_phase[]>(static_cast<size_t>(phase_count));
  std::copy_n(buffers, buffer_count, made->buffers.get());
  std::copy_n(phases, phase_count, made->phases.get());
  if (const plz_status status = made->code.load(code, static_cast<size_t>(code_bytes))) return status;
  *program = made.release();
  return PLZ_OK;
}

}  // namespace

plz_status check_buffers(const plz_buffer *buffers, int count) noexcept {
  if (count < 0 || count > PLZ_MAX_BUFFERS) {
    return fail(PLZ_INVALID_ARGUMENT, "program has %d buffers: expected at most %d", count, PLZ_MAX_BUFFERS);
  }
  for (int index = 0; index < count; ++index) {
    const plz_buffer &buffer = buffers[index];
    const bool is_role = buffer.role >= PLZ_ROLE_INPUT && buffer.role <= PLZ_ROLE_TABLE;
    const bool is_stored = buffer.role == PLZ_ROLE_INPUT || buffer.role == PLZ_ROLE_OUTPUT;
    const bool is_pairs = buffer.axis == PLZ_AXIS_IJ && is_stored;
    if (!is_role || !(is_axis(buffer.axis) || is_pairs) || buffer.row_bytes <= 0) {
      return fail(PLZ_INVALID_ARGUMENT, "buffer %d of the program is malformed", index);
    }
  }
  return PLZ_OK;
}

}  // namespace pylazy

extern "C" int32_t plz_program_create(const void *code, int64_t code_bytes, const plz_buffer *buffers,
                                      int32_t buffer_count, const plz_phase *phases, int32_t phase_count,
                                      plz_program **program) {
  try {
    *program = nullptr;
    return pylazy::create(code, code_bytes, buffers, buffer_count, phases, phase_count, program);
  } catch (const std::bad_alloc &) {
    return pylazy::fail(PLZ_OUT_OF_MEMORY, "not enough memory for a program");
  } catch (...) {
    return pylazy::fail(PLZ_SYSTEM_ERROR, "unexpected failure while a program was loaded");
  }
}

extern "C" void plz_program_destroy(plz_program *program) { delete program; }

extern "C" int32_t plz_phase_geometry(const plz_program *program, int32_t phase, int64_t m, int64_t n,
                                      int64_t batch_count, plz_geometry *geometry) {
  if (phase < 0 || phase >= program->phase_count || m < 0 || n < 0 || batch_count < 0) {
    return pylazy::fail(PLZ_INVALID_ARGUMENT, "no geometry for phase %d with these extents", static_cast<int>(phase));
  }
  const std::unique_ptr<plz_geometry[]> all(new (std::nothrow)
                                                plz_geometry[static_cast<size_t>(program->phase_count)]);
  if (all == nullptr) return pylazy::fail(PLZ_OUT_OF_MEMORY, "not enough memory for the geometry of a launch");
  const plz_status status =
      pylazy::make_geometry(program->phases.get(), program->phase_count, m, n, batch_count, all.get());
  if (status == PLZ_OK) *geometry = all.get()[phase];
  return status;
}
