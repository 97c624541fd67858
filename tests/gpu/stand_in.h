/* What the parts of the stand-in for CUDA share: the log, devices, memory, and work that is given to streams. */
#ifndef STAND_IN_H
#define STAND_IN_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#  define EXPORT __declspec(dllexport)
#else
#  define EXPORT __attribute__((visibility("default")))
#endif

enum {
  SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
  NO_BINARY = 209, INVALID_PTX = 218, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600,
  CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, CAPTURE_MERGE = 902, CAPTURE_UNMATCHED = 903,
  CAPTURE_UNJOINED = 904, CAPTURE_ISOLATION = 905, CAPTURE_IMPLICIT = 906, CAPTURED_EVENT = 907,
  CAPTURE_WRONG_THREAD = 908
};

/* Something for a stream to do, whole: it may run later, and often. */
typedef struct Work Work;
struct Work {
  int (*run)(const Work *work);
  /* A launch. */
  const void *function;
  uint32_t grid[3], threads;
  int parameter_count;
  uint64_t *parameters;
  void *stream;
  /* A copy or a fill; a copy to the host is seen there when it was waited for, and not before. */
  void *target;
  const void *source;
  size_t size;
  unsigned int value;
  int to_host;
  /* A function of the host; an event that is recorded or waited for. */
  void (*callback)(void *data);
  void *data;
  uint64_t serial;
};

void *stand_in_contents(const void *address);
void note(const char *format, ...);
int fails(const char *name);
int current_device(void);

#define BEGIN(name)                                  \
  const int failure = fails(name);                   \
  if (failure != SUCCESS) return failure;
#define BEGIN_IN_CONTEXT(name)                       \
  BEGIN(name)                                        \
  if (current_device() < 0) return INVALID_CONTEXT;

/* Give work to a stream: it runs at once, when it is waited for (see `stand_in_defer`), or when a graph is launched. */
int submit(void *stream, const Work *work);
/* The error of a call that may disturb captures, where one is under way that forbids it; it ends that capture. */
int refuse_while_capturing(void);
int is_capturing(void *stream);
/* Run all that the streams of a device were given; -1: of all devices. */
int drain_device(int device);

#endif
