/* The runtime of embedded kernels: checks arrays, chooses code for this processor, runs its phases on the calling
 * thread. It allocates nothing, keeps no state but the message of the last failure, and calls only memset and
 * vsnprintf. The geometry is that of runtime/src/geometry.cpp, so results have the same bits.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#if defined(_WIN32)
#define PLZ_WEAK /* has no such symbols: a program links one file of kernels */
#define PLZ_HIDDEN
#else
#define PLZ_WEAK __attribute__((weak))
#define PLZ_HIDDEN __attribute__((visibility("hidden")))
#endif

/* How kernels are laid into the text of the program, and which of their entries takes arguments as this system does. */
#if defined(_WIN32) && defined(__x86_64__)
#define PLZ_ENTRY(entry, windows_entry) (windows_entry)
#else
#define PLZ_ENTRY(entry, windows_entry) (entry)
#endif
#if defined(_WIN32)
#define PLZ_TEXT_SECTION ".text\n"
#define PLZ_SYMBOL(name) name
#define PLZ_END_SECTION ""
#elif defined(__APPLE__)
#define PLZ_TEXT_SECTION ".section __TEXT,__text,regular,pure_instructions\n"
#define PLZ_SYMBOL(name) "_" name
#define PLZ_END_SECTION ""
#else
#define PLZ_TEXT_SECTION ".pushsection .text.plz,\"ax\",%progbits\n"
#define PLZ_SYMBOL(name) name
#define PLZ_END_SECTION ".popsection\n"
#endif

/* Weak, so that programs may link several such files; they share the message. */
PLZ_WEAK _Thread_local char plz_error_text[512];

PLZ_WEAK const char *plz_last_error(void) { return plz_error_text; }

__attribute__((format(printf, 2, 3))) static int32_t plz_fail(int32_t status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(plz_error_text, sizeof(plz_error_text), format, arguments);
  va_end(arguments);
  return status;
}

enum { PLZ_INPUT, PLZ_OUTPUT, PLZ_SCRATCH };
enum { PLZ_NONE, PLZ_I, PLZ_J };
enum { PLZ_MAX_BUFFERS = 256, PLZ_MAX_PHASES = 64 };

typedef void (*plz_entry)(void *const *pointers, const int64_t *extents, int64_t tile_begin, int64_t tile_end);

typedef struct {
  const char *name;
  int role, axis;
  int64_t dim;
  int item_bytes;
  uint8_t type_code;
  int per_split;
} plz_buffer;

typedef struct {
  int64_t entry, rows_per_tile, max_columns_per_split;
  double cost;
  int rows_axis, columns_axis, splittable, merges;
} plz_phase;

typedef struct {
  int level; /* 1, 3, 4 of x86-64; 1 of aarch64 */
  int few;   /* the axis with few rows that it is for */
  const unsigned char *code;
  const plz_buffer *buffers;
  int buffer_count;
  const plz_phase *phases;
  int phase_count;
} plz_image;

/* What becomes of one output where nothing is reduced, and after the program. */
typedef struct {
  int has_neutral;
  double neutral;
  int64_t k;
  int is_mean;
} plz_result;

typedef struct {
  const char *name;
  int reduced;
  const plz_image *images;
  int image_count;
  const plz_result *results;
} plz_kernel;

typedef struct {
  int64_t rows, columns, columns_per_split, splits, tiles;
} plz_geometry;

#define PLZ_INT64_MAX INT64_C(0x7fffffffffffffff)

static int64_t plz_multiply(int64_t a, int64_t b) { return a != 0 && b > PLZ_INT64_MAX / a ? PLZ_INT64_MAX : a * b; }
static int64_t plz_divide_up(int64_t a, int64_t b) { return a / b + (a % b != 0); }
static int64_t plz_round_up(int64_t a, int64_t b) { return plz_multiply(plz_divide_up(a, b), b); }
static int64_t plz_least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t plz_most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t plz_extent(int axis, int64_t m, int64_t n) { return axis == PLZ_I ? m : axis == PLZ_J ? n : 1; }

/* The processor: levels of the x86-64 psABI, as in runtime/src/cpu_level.cpp. */
static int plz_host_level(void) {
#if defined(__x86_64__)
  unsigned a, b, c, d, leaf7, extended, low, high;
  const unsigned v3_leaf1 = 1u << 0 | 1u << 9 | 1u << 12 | 1u << 13 | 1u << 19 | 1u << 20 | 1u << 22 | 1u << 23 |
                            1u << 27 | 1u << 28 | 1u << 29;
  const unsigned v3_leaf7 = 1u << 3 | 1u << 5 | 1u << 8, v3_extended = 1u << 0 | 1u << 5;
  const unsigned v4_leaf7 = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & v3_leaf1) != v3_leaf1) return 1;
  if (!__get_cpuid_count(7, 0, &a, &leaf7, &c, &d) || (leaf7 & v3_leaf7) != v3_leaf7) return 1;
  if (!__get_cpuid(0x80000001u, &a, &b, &extended, &d) || (extended & v3_extended) != v3_extended) return 1;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & 0x06) != 0x06) return 1;
  return (leaf7 & v4_leaf7) == v4_leaf7 && (low & 0xE6) == 0xE6 ? 4 : 3;
#else
  return 1;
#endif
}

/* As in pylazy.programs.few_rows: rows that fill no more than three quarters of one vector, or of two. */
static int plz_leave_lanes_idle(int64_t rows, int64_t lanes) {
  return rows <= 2 * lanes && 4 * rows <= 3 * lanes * ((rows + lanes - 1) / lanes);
}

static int plz_few_rows(int level, int item_bytes, int64_t m, int64_t n) {
  const int64_t many = 256, lanes = (level >= 3 ? 64 : 32) / (item_bytes == 4 ? 4 : 8);
  if (m > many && n > many) return PLZ_NONE;
  if (n >= many && plz_leave_lanes_idle(m, lanes)) return PLZ_I;
  return m >= many && plz_leave_lanes_idle(n, lanes) ? PLZ_J : PLZ_NONE;
}

static const plz_image *plz_choose(const plz_kernel *kernel, int64_t m, int64_t n) {
  const int level = plz_host_level();
  const int few = plz_few_rows(level, kernel->images[0].buffers[0].item_bytes, m, n);
  const plz_image *best = NULL;
  for (int k = 0; k < kernel->image_count; ++k) {
    const plz_image *image = &kernel->images[k];
    if (image->level > level || (image->few != PLZ_NONE && image->few != few)) continue;
    if (best == NULL || image->level > best->level || (image->level == best->level && image->few != PLZ_NONE)) {
      best = image;
    }
  }
  return best;
}

static int64_t plz_columns_per_split(const plz_phase *phase, int64_t columns, int64_t row_tiles) {
  const int64_t enough_tiles = 64, block = 1024, most_least = 8192;
  const double least_cycles = 1 << 17;
  int64_t chosen = columns;
  if (row_tiles < enough_tiles) {
    const double cycles = (double)phase->rows_per_tile * phase->cost;
    const int64_t share = plz_round_up(plz_divide_up(columns, plz_divide_up(enough_tiles, plz_most(row_tiles, 1))), block);
    const int64_t least = cycles * (double)most_least <= least_cycles
                              ? most_least
                              : plz_round_up(1 + (int64_t)(least_cycles / cycles), block);
    chosen = plz_most(share, least);
  }
  const int64_t limit = phase->max_columns_per_split;
  if (limit > 0 && plz_least(chosen, columns) > limit) chosen = limit < block ? limit : limit / block * block;
  return plz_most(plz_least(chosen, columns), 1);
}

static int32_t plz_make_geometry(const plz_kernel *kernel, const plz_image *image, int64_t m, int64_t n,
                                 plz_geometry *geometry) {
  const plz_geometry *merged = NULL;
  for (int k = 0; k < image->phase_count; ++k) {
    const plz_phase *phase = &image->phases[k];
    plz_geometry *out = &geometry[k];
    out->rows = plz_extent(phase->rows_axis, m, n);
    out->columns = plz_extent(phase->columns_axis, m, n);
    const int64_t row_tiles = plz_divide_up(out->rows, phase->rows_per_tile);
    if (phase->merges && merged != NULL) {
      out->columns_per_split = merged->columns_per_split;
      out->splits = merged->splits;
      out->tiles = merged->splits == 1 ? 0 : row_tiles;
    } else if (phase->splittable) {
      out->columns_per_split = plz_columns_per_split(phase, out->columns, row_tiles);
      out->splits = plz_most(plz_divide_up(out->columns, out->columns_per_split), 1);
      out->tiles = plz_multiply(row_tiles, out->splits);
      merged = out;
    } else {
      if (phase->max_columns_per_split > 0 && out->columns > phase->max_columns_per_split) {
        return plz_fail(PLZ_UNSUPPORTED, "%s: %lld columns, this kernel takes at most %lld", kernel->name,
                        (long long)out->columns, (long long)phase->max_columns_per_split);
      }
      out->columns_per_split = plz_most(out->columns, 1);
      out->splits = 1;
      out->tiles = row_tiles;
    }
    if (out->tiles > (INT64_C(1) << 61)) return plz_fail(PLZ_INVALID_ARGUMENT, "%s: too many tiles", kernel->name);
  }
  return PLZ_OK;
}

/* Where each scratch array lies; returns the bytes of all. */
static int64_t plz_plan_scratch(const plz_image *image, const plz_geometry *geometry, int64_t m, int64_t n,
                                int64_t *offsets) {
  int64_t splits = 1, bytes = 0;
  for (int k = 0; k < image->phase_count; ++k) splits = plz_most(splits, geometry[k].splits);
  for (int k = 0; k < image->buffer_count; ++k) {
    const plz_buffer *buffer = &image->buffers[k];
    offsets[k] = -1;
    if (buffer->role != PLZ_SCRATCH || (buffer->per_split && splits == 1)) continue;
    const int64_t arrays = plz_multiply(buffer->per_split ? splits : 1, plz_extent(buffer->axis, m, n));
    const int64_t size = plz_round_up(plz_most(plz_multiply(arrays, buffer->dim * buffer->item_bytes), 1), 64);
    offsets[k] = bytes;
    if (size > PLZ_INT64_MAX / 2 - bytes) return PLZ_INT64_MAX;
    bytes += size;
  }
  return bytes;
}

static size_t plz_scratch_bytes(const plz_kernel *kernel, int64_t m, int64_t n) {
  plz_geometry geometry[PLZ_MAX_PHASES];
  int64_t offsets[PLZ_MAX_BUFFERS];
  if (m <= 0 || n <= 0) return 0;
  const plz_image *image = plz_choose(kernel, m, n);
  if (image == NULL || plz_make_geometry(kernel, image, m, n, geometry) != PLZ_OK) return 0;
  const int64_t bytes = plz_plan_scratch(image, geometry, m, n, offsets);
  return bytes == 0 ? 0 : (size_t)bytes + 63; /* so that any address will do */
}

static int32_t plz_check_tensor(const plz_kernel *kernel, const plz_buffer *buffer, const DLTensor *tensor,
                                int64_t *extents) {
  if (tensor == NULL) return plz_fail(PLZ_INVALID_ARGUMENT, "%s: %s is null", kernel->name, buffer->name);
  if (tensor->device.device_type != kDLCPU) {
    return plz_fail(PLZ_INVALID_ARGUMENT, "%s: %s is on device %d, expected the CPU (1)", kernel->name, buffer->name,
                    (int)tensor->device.device_type);
  }
  if (tensor->dtype.code != buffer->type_code || tensor->dtype.bits != buffer->item_bytes * 8 ||
      tensor->dtype.lanes != 1) {
    return plz_fail(PLZ_INVALID_ARGUMENT, "%s: %s has type code %d of %d bits, expected %d of %d", kernel->name,
                    buffer->name, tensor->dtype.code, tensor->dtype.bits, buffer->type_code, buffer->item_bytes * 8);
  }
  const int rank = tensor->ndim;
  const int64_t *shape = tensor->shape;
  const int wanted = buffer->axis == PLZ_NONE ? 1 : 2; /* a dimension of size 1 at the end may be left out */
  if ((rank != wanted && !(rank == wanted - 1 && buffer->dim == 1)) || (rank > 0 && shape == NULL)) {
    return plz_fail(PLZ_INVALID_ARGUMENT, "%s: %s has %d dimensions, expected %d", kernel->name, buffer->name, rank,
                    wanted);
  }
  if (rank == wanted && shape[rank - 1] != buffer->dim) {
    return plz_fail(PLZ_INVALID_ARGUMENT, "%s: %s has rows of %lld elements, expected %lld", kernel->name, buffer->name,
                    (long long)shape[rank - 1], (long long)buffer->dim);
  }
  if (buffer->axis != PLZ_NONE) {
    int64_t *extent = &extents[buffer->axis];
    if (shape[0] < 0 || (*extent >= 0 && *extent != shape[0])) {
      return plz_fail(PLZ_INVALID_ARGUMENT, "%s: %s has %lld rows, the arrays before it %lld", kernel->name,
                      buffer->name, (long long)shape[0], (long long)*extent);
    }
    *extent = shape[0];
  }
  if (rank > 0 && shape[0] == 0) return PLZ_OK; /* no element: nothing is read or written */
  int64_t step = 1;
  for (int d = rank - 1; d >= 0; --d) {
    if (tensor->strides != NULL && shape[d] > 1 && tensor->strides[d] != step) {
      return plz_fail(PLZ_INVALID_ARGUMENT, "%s: %s is not contiguous", kernel->name, buffer->name);
    }
    step = plz_multiply(step, shape[d]);
  }
  if (tensor->data == NULL) {
    return plz_fail(PLZ_INVALID_ARGUMENT, "%s: %s has no data", kernel->name, buffer->name);
  }
  if (((uintptr_t)tensor->data + tensor->byte_offset) % (uintptr_t)buffer->item_bytes != 0) {
    return plz_fail(PLZ_INVALID_ARGUMENT, "%s: the data of %s is not aligned to its elements", kernel->name,
                    buffer->name);
  }
  return PLZ_OK;
}

static void plz_set(void *data, int item_bytes, int64_t index, double value) {
  if (item_bytes == 4) {
    ((float *)data)[index] = (float)value;
  } else {
    ((double *)data)[index] = value;
  }
}

static double plz_get(const void *data, int item_bytes, int64_t index) {
  return item_bytes == 4 ? (double)((const float *)data)[index] : ((const double *)data)[index];
}

/* Check everything, then run. `tensors` are the inputs and outputs in the order of the buffers. */
static int32_t plz_call(const plz_kernel *kernel, const DLTensor *const *tensors, void *scratch, size_t scratch_bytes) {
  void *pointers[PLZ_MAX_BUFFERS];
  int64_t offsets[PLZ_MAX_BUFFERS], found[3] = {1, -1, -1};
  plz_geometry geometry[PLZ_MAX_PHASES];
  const plz_buffer *buffers = kernel->images[0].buffers; /* inputs and outputs are the same in every image */
  for (int k = 0, argument = 0; k < kernel->images[0].buffer_count; ++k) {
    if (buffers[k].role == PLZ_SCRATCH) continue;
    const int32_t status = plz_check_tensor(kernel, &buffers[k], tensors[argument++], found);
    if (status != PLZ_OK) return status;
  }
  const int64_t m = found[PLZ_I] < 0 ? 1 : found[PLZ_I], n = found[PLZ_J] < 0 ? 1 : found[PLZ_J];
  const int64_t reduced = plz_extent(kernel->reduced, m, n);
  for (int k = 0, output = 0; k < kernel->images[0].buffer_count; ++k) {
    if (buffers[k].role != PLZ_OUTPUT) continue;
    const plz_result *result = &kernel->results[output++];
    if (result->k > reduced || (reduced == 0 && !result->has_neutral)) {
      return plz_fail(PLZ_INVALID_ARGUMENT, "%s: %lld elements to choose from, expected at least %lld", kernel->name,
                      (long long)reduced, (long long)plz_most(result->k, 1));
    }
  }
  const plz_image *image = plz_choose(kernel, plz_most(m, 1), plz_most(n, 1));
  if (image == NULL) return plz_fail(PLZ_UNSUPPORTED, "%s: no code for this processor", kernel->name);
  for (int k = 0, argument = 0; k < image->buffer_count; ++k) {
    pointers[k] = NULL;
    if (image->buffers[k].role == PLZ_SCRATCH) continue;
    const DLTensor *tensor = tensors[argument++];
    pointers[k] = tensor->data == NULL ? NULL : (char *)tensor->data + tensor->byte_offset;
  }
  if (m > 0 && n > 0) {
    const int32_t status = plz_make_geometry(kernel, image, m, n, geometry);
    if (status != PLZ_OK) return status;
    const int64_t needed = plz_plan_scratch(image, geometry, m, n, offsets);
    char *base = (char *)(((uintptr_t)scratch + 63) / 64 * 64);
    if (needed > 0 && (scratch == NULL || (uint64_t)needed + 63 > (uint64_t)scratch_bytes)) {
      return plz_fail(PLZ_INVALID_ARGUMENT, "%s: %llu bytes of scratch, expected %llu", kernel->name,
                      (unsigned long long)scratch_bytes, (unsigned long long)needed + 63);
    }
    for (int k = 0; k < image->buffer_count; ++k) {
      if (offsets[k] >= 0) pointers[k] = base + offsets[k];
    }
    for (int k = 0; k < image->phase_count; ++k) {
      const plz_geometry *shape = &geometry[k];
      const int64_t extents[4] = {shape->rows, shape->columns, shape->columns_per_split, shape->splits};
      plz_entry entry;
      const unsigned char *address = image->code + image->phases[k].entry;
      memcpy(&entry, &address, sizeof(entry)); /* ISO C has no cast from data to functions */
      if (shape->tiles > 0) entry(pointers, extents, 0, shape->tiles);
    }
  }
  for (int k = 0, output = 0; k < image->buffer_count; ++k) {
    const plz_buffer *buffer = &image->buffers[k];
    if (buffer->role != PLZ_OUTPUT) continue;
    const plz_result *result = &kernel->results[output++];
    const int64_t count = plz_extent(buffer->axis, m, n) * buffer->dim;
    const int is_empty = m == 0 || n == 0;
    for (int64_t index = 0; (is_empty || result->is_mean) && index < count; ++index) {
      const double value =
          is_empty ? result->neutral : plz_get(pointers[k], buffer->item_bytes, index) / (double)reduced;
      plz_set(pointers[k], buffer->item_bytes, index, value);
    }
  }
  return PLZ_OK;
}
