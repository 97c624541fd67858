/* The C interface of the pylazy runtime: load a kernel image, run its phases on the CPU, launch kernels on NVIDIA GPUs.
 *
 * Every function is safe to call from several threads at once, throws nothing, and reports failure as a status; the
 * message is kept for the calling thread. Layouts below are shared with pylazy/runtime/native_library.py.
 */
#ifndef PYLAZY_RUNTIME_H
#define PYLAZY_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#  if defined(PYLAZY_RUNTIME_BUILD)
#    define PLZ_API __declspec(dllexport)
#  else
#    define PLZ_API __declspec(dllimport)
#  endif
#else
#  define PLZ_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Grows by one whenever a function or a layout of this file changes. */
#define PLZ_ABI_VERSION 5

/* The largest number of buffers of one program. */
#define PLZ_MAX_BUFFERS 256

typedef enum plz_status {
  PLZ_OK = 0,
  PLZ_INVALID_ARGUMENT = 1,
  PLZ_OUT_OF_MEMORY = 2,
  PLZ_SYSTEM_ERROR = 3,
  PLZ_UNSUPPORTED = 4,
  PLZ_NO_DEVICE = 5,    /* no driver, or no GPU of this number */
  PLZ_DEVICE_ERROR = 6, /* the CUDA driver refuses; the message has its name and text of the error */
  PLZ_COMPILE_ERROR = 7 /* the CUDA driver cannot load a module; the message ends with its log */
} plz_status;

/* A table lists the tiles of phases over the rows of its axis, in int64 words: the number of tiles; the number of pairs
 * in all of them; for each tile {first row, row after its last, word where its columns begin, word where they end}; then
 * columns as {first, after the last}. Nothing checks that the tiles lie within the extents of a launch. */
typedef enum plz_role { PLZ_ROLE_INPUT = 0, PLZ_ROLE_OUTPUT = 1, PLZ_ROLE_SCRATCH = 2, PLZ_ROLE_TABLE = 3 } plz_role;

/* Which extent: one element, the M rows of x, the N rows of y; of inputs and outputs also all M * N pairs. */
typedef enum plz_axis { PLZ_AXIS_NONE = 0, PLZ_AXIS_I = 1, PLZ_AXIS_J = 2, PLZ_AXIS_IJ = 3 } plz_axis;

typedef struct plz_buffer {
  int32_t role;
  int32_t axis;
  int64_t row_bytes;
  int32_t per_split; /* scratch only: one such array for every column split */
  int32_t reserved;  /* zero */
} plz_buffer;

typedef struct plz_phase {
  int64_t entry; /* byte offset of the function in the code */
  int64_t rows_per_tile;
  int64_t max_columns_per_split; /* zero: no limit */
  double cost;                   /* estimated cycles for one (row, column) pair on one core */
  int32_t rows_axis;
  int32_t columns_axis;
  int32_t splittable;
  int32_t merges; /* merges the splits of the last splittable phase; skipped when there is one split */
  int32_t tile_table; /* number of the buffer that lists the tiles; -1: they are cut from the extents */
  int32_t reserved;   /* zero */
} plz_phase;

/* What a launch does with one phase: a pure function of the phase, the extents and the number of batch elements; and,
 * for the number of tiles, of the phase's table if it has one. */
typedef struct plz_geometry {
  int64_t rows;
  int64_t columns;
  int64_t columns_per_split;
  int64_t splits;
  int64_t tiles; /* of one batch element */
} plz_geometry;

/* The signature of every entry. extents = {rows, columns, columns_per_split, splits}. */
typedef void (*plz_entry)(void *const *pointers, const int64_t *extents, int64_t tile_begin, int64_t tile_end);

typedef struct plz_program plz_program;

PLZ_API int32_t plz_abi_version(void);

/* The message of the last failure in this thread; empty before the first. Valid until the next failure. */
PLZ_API const char *plz_last_error(void);

/* "x86-64", "x86-64-v3", "x86-64-v4", "aarch64", or "unknown": the best level that processor and system support. */
PLZ_API const char *plz_host_cpu_level(void);

/* Threads that work on one launch, the caller included. */
PLZ_API int32_t plz_set_thread_count(int32_t count);
PLZ_API int32_t plz_thread_count(void);

/* Copy the code to executable memory. The caller has checked that this processor can run it. */
PLZ_API int32_t plz_program_create(const void *code, int64_t code_bytes, const plz_buffer *buffers,
                                   int32_t buffer_count, const plz_phase *phases, int32_t phase_count,
                                   plz_program **program);

/* Free a program that no thread runs. A null program is ignored. */
PLZ_API void plz_program_destroy(plz_program *program);

/* What a launch with these extents would do with one phase; 0 tiles where a table says it. */
PLZ_API int32_t plz_phase_geometry(const plz_program *program, int32_t phase, int64_t m, int64_t n,
                                   int64_t batch_count, plz_geometry *geometry);

/* Run every phase, in order, for every batch element.
 *
 * pointers: the base of each input, output and table, in the order of the program's buffers, scratch left out. A table
 * is one for all batch elements.
 * batch_strides: bytes, `batch_rank` of them for the first of those buffers, then for the second, ...; zero broadcasts.
 */
PLZ_API int32_t plz_run(const plz_program *program, void *const *pointers, int64_t m, int64_t n, int32_t batch_rank,
                        const int64_t *batch_sizes, const int64_t *batch_strides);

/* What plz_run_one reads: a program, extents and pointers as of plz_run. */
typedef struct plz_launch {
  const plz_program *program;
  int64_t m;
  int64_t n;
  void *pointers[1]; /* as many as the program has inputs, outputs and tables */
} plz_launch;

/* plz_run without a batch, for callers to whom each argument has a price: a foreign call from Python takes as long as
 * a small kernel. */
PLZ_API int32_t plz_run_one(const plz_launch *launch);

/* NVIDIA GPUs: addresses are of device memory, a stream is a CUstream of the driver's interface, or null for the default
 * stream. The driver is the library that the environment variable PYLAZY_CUDA_DRIVER names, by default libcuda.so.1 or
 * nvcuda.dll; nothing links to it, and it is loaded by the first call that needs it. Everything happens in the primary
 * context of a device, which is current during a call and no longer after it.
 */

typedef struct plz_gpu_properties {
  int32_t processors;
  int32_t major; /* of the compute capability */
  int32_t minor;
  int32_t clock_kilohertz; /* the highest clock; 0 where the driver does not say */
  char name[256];
} plz_gpu_properties;

/* The parameters of a kernel are the pointers of all buffers of the program; then, as int64, for each buffer the bytes
 * from one element of the batch to the next; then, as int64, rows, columns, columns of a split, splits. Blocks along x
 * are rows, along y splits, along z elements of the batch. */
typedef struct plz_gpu_kernel {
  const char *name;
  int64_t rows_per_block;
  int64_t tile_columns; /* splits are multiples of them */
  int32_t rows_axis;
  int32_t columns_axis;
  int32_t block_threads;
  int32_t blocks_per_processor;
  int32_t splittable;
  int32_t merges;     /* merges the splits of the kernel before it; skipped when there is one split */
  int32_t tile_table; /* number of the buffer that lists the rows of each block; -1: they are cut from the extent */
  int32_t reserved;   /* zero */
} plz_gpu_kernel;

/* How one kernel is launched: a pure function of the kernels, the extents, the processors of the device and the elements
 * of a batch that one launch covers. */
typedef struct plz_gpu_geometry {
  int64_t row_blocks;
  int64_t split_blocks; /* 0: the kernel is not launched */
  int64_t columns_per_split;
  int64_t splits;
} plz_gpu_geometry;

/* The sizes of a launch. The arrays have an entry for each input, output and table, in the order of the buffers; those of
 * strides `batch_rank` for each, as in plz_run. */
typedef struct plz_gpu_sizes {
  int64_t m;
  int64_t n;
  const int64_t *tiles; /* of each table the tiles that it lists, 0 elsewhere; may be null if there is no table */
  const int64_t *batch_sizes;
  const int64_t *batch_strides;
  int32_t batch_rank;
  int32_t processors; /* of the device: they decide how the columns are cut */
} plz_gpu_sizes;

typedef struct plz_gpu_program plz_gpu_program;

/* The number of GPUs; without a driver it is 0, and plz_last_error says why. */
PLZ_API int32_t plz_gpu_device_count(int32_t *count);
PLZ_API int32_t plz_gpu_device_properties(int32_t device, plz_gpu_properties *properties);

/* Describe a program by PTX as text; and by a cubin, which is taken where the device runs it. cubin may be null. The driver
 * is not needed yet. */
PLZ_API int32_t plz_gpu_program_create(const char *ptx, const void *cubin, int64_t cubin_bytes,
                                       const plz_buffer *buffers, int32_t buffer_count,
                                       const plz_gpu_kernel *kernels, int32_t kernel_count,
                                       plz_gpu_program **program);

/* Free a program that no thread launches. What the driver has loaded stays, as a captured graph may launch it. */
PLZ_API void plz_gpu_program_destroy(plz_gpu_program *program);

PLZ_API int32_t plz_gpu_kernel_geometry(const plz_gpu_program *program, int32_t kernel, const plz_gpu_sizes *sizes,
                                        plz_gpu_geometry *geometry);

/* The bytes of scratch memory that a launch needs: a pure function. */
PLZ_API int32_t plz_gpu_scratch_bytes(const plz_gpu_program *program, const plz_gpu_sizes *sizes, int64_t *bytes);

/* Load a program on a device, which the first launch does otherwise: once, however many threads ask. */
PLZ_API int32_t plz_gpu_program_load(plz_gpu_program *program, int32_t device);

/* Launch every kernel, in order, for every element of the batch; returns before they have run.
 *
 * On a device on which the program is loaded, this allocates, copies and waits for nothing, so it can be captured in a
 * CUDA graph.
 *
 * pointers: the addresses of each input, output and table, in the order of the program's buffers.
 * scratch: plz_gpu_scratch_bytes of memory, aligned to 256 bytes, that nobody else uses before the launch has run.
 */
PLZ_API int32_t plz_gpu_launch(plz_gpu_program *program, int32_t device, void *stream, void *const *pointers,
                               void *scratch, const plz_gpu_sizes *sizes);

/* Memory of a device, for callers who have no allocator of their own. Nothing waits but plz_gpu_synchronize; but drivers
 * without memory pools allocate and free at once, which waits for the device. */
PLZ_API int32_t plz_gpu_memory(int32_t device, int64_t *free_bytes, int64_t *total_bytes);
PLZ_API int32_t plz_gpu_allocate(int32_t device, void *stream, int64_t bytes, void **address);
PLZ_API int32_t plz_gpu_free(int32_t device, void *stream, void *address);
PLZ_API int32_t plz_gpu_copy_to_device(int32_t device, void *stream, void *address, const void *host, int64_t bytes);
PLZ_API int32_t plz_gpu_copy_to_host(int32_t device, void *stream, void *host, const void *address, int64_t bytes);
PLZ_API int32_t plz_gpu_synchronize(int32_t device, void *stream);

/* Let a stream wait for what another one has been given so far. */
PLZ_API int32_t plz_gpu_wait(int32_t device, void *waiting_stream, void *awaited_stream);

#ifdef __cplusplus
}
#endif

#endif
