/* Stands in for the CUDA driver in tests: its streams, its events, captures of streams and graphs.
 *
 * Work runs at once, unless `stand_in_defer` was called: then as late as CUDA's rules allow, when something waits for it,
 * so that what is not ordered by streams and events is seen to be wrong.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "stand_in.h"

enum { MODE_GLOBAL = 0, MODE_THREAD_LOCAL = 1, MODE_RELAXED = 2 };
enum { STATUS_NONE = 0, STATUS_ACTIVE = 1, STATUS_INVALIDATED = 2 };
enum { MOST_NODES = 4096, MOST_DEPENDENCIES = 32, NON_BLOCKING = 1 };

typedef struct { int count, nodes[MOST_DEPENDENCIES]; } Dependencies;
typedef struct { Work work; Dependencies after; } Node;
typedef struct { int count; Node nodes[MOST_NODES]; } Graph;
typedef struct Capture {
  Graph *graph;
  struct Stream *origin;
  int mode, is_invalid;
  pthread_t thread;
  uint64_t id;
  struct Capture *next; /* of those under way */
} Capture;
typedef struct Queued { Work work; struct Queued *next; } Queued;
typedef struct Stream {
  void *handle;
  int device, is_blocking;
  Capture *capture;
  Dependencies last; /* of the capture: what the next node comes after */
  Queued *first, **end;
  struct Stream *next;
} Stream;
typedef struct { Capture *capture; Dependencies last; Stream *stream; uint64_t recorded, done; } Event;

static Stream *streams;
static Capture *captures;
static uint64_t capture_count;
static int is_deferred;
static __thread int thread_mode = MODE_GLOBAL;
static pthread_mutex_t lists, running;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_locks(void) {
  pthread_mutexattr_t recursive;
  pthread_mutexattr_init(&recursive);
  pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init(&lists, &recursive);
  pthread_mutex_init(&running, &recursive);
}
static void lock(pthread_mutex_t *mutex) { pthread_once(&once, make_locks); pthread_mutex_lock(mutex); }
static void unlock(pthread_mutex_t *mutex) { pthread_mutex_unlock(mutex); }

EXPORT void stand_in_defer(int deferred) { is_deferred = deferred; }

static Stream *new_stream(void *handle, int device, int is_blocking) {
  Stream *made = (Stream *)calloc(1, sizeof(Stream));
  made->handle = handle == NULL && !is_blocking ? made : handle;
  made->device = device;
  made->is_blocking = is_blocking;
  made->end = &made->first;
  lock(&lists);
  made->next = streams;
  streams = made;
  unlock(&lists);
  return made;
}
/* Tests name streams by numbers; those below 3 are the default streams of the current device. */
static Stream *stream_of(void *handle) {
  const int device = current_device();
  const int is_default = (uintptr_t)handle < 3;
  if ((uintptr_t)handle == 1) handle = NULL;
  lock(&lists);
  Stream *found = streams;
  while (found != NULL && !(found->handle == handle && (!is_default || found->device == device))) found = found->next;
  unlock(&lists);
  return found != NULL ? found : new_stream(handle, device, is_default);
}

/* Work that waits. */

static void enqueue(Stream *stream, const Work *work) {
  Queued *made = (Queued *)malloc(sizeof(Queued));
  made->work = *work;
  made->next = NULL;
  lock(&lists);
  *stream->end = made;
  stream->end = &made->next;
  unlock(&lists);
}
/* Run the first thing that a stream was given; 0 where there is none. */
static int step(Stream *stream, int *status) {
  lock(&running);
  lock(&lists);
  Queued *taken = stream->first;
  if (taken != NULL) {
    stream->first = taken->next;
    if (stream->first == NULL) stream->end = &stream->first;
  }
  unlock(&lists);
  if (taken != NULL) {
    const int found = taken->work.run(&taken->work);
    if (*status == SUCCESS) *status = found;
    free(taken);
  }
  unlock(&running);
  return taken != NULL;
}
static int drain(Stream *stream) {
  int status = SUCCESS;
  while (step(stream, &status)) {}
  return status;
}
int drain_device(int device) {
  int status = SUCCESS;
  for (int found = 1; found;) { /* in turn, as streams may run at the same time */
    found = 0;
    for (Stream *stream = streams; stream != NULL; stream = stream->next) {
      if (device < 0 || stream->device == device) found |= step(stream, &status);
    }
  }
  return status;
}

static int run_kept_copy(const Work *work) {
  memcpy(work->target, work->source, work->size);
  free(work->data);
  return SUCCESS;
}
/* The legacy default stream comes after all blocking streams and they after it. */
static void order_with_default_stream(Stream *stream) {
  if (!stream->is_blocking) return;
  for (Stream *other = streams; other != NULL; other = other->next) {
    const int is_ordered = other->is_blocking && (other->handle == NULL || stream->handle == NULL);
    if (other != stream && other->device == stream->device && is_ordered) drain(other);
  }
}
static int run_or_enqueue(Stream *stream, const Work *work) {
  order_with_default_stream(stream);
  if (is_deferred) {
    enqueue(stream, work);
    return SUCCESS;
  }
  if (!work->to_host) return work->run(work);
  /* What is copied is what the memory holds now: later launches of the stream come after it. */
  Work kept = *work;
  kept.source = kept.data = malloc(work->size == 0 ? 1 : work->size);
  memcpy(kept.data, stand_in_contents(work->source), work->size);
  kept.run = run_kept_copy;
  enqueue(stream, &kept);
  return SUCCESS;
}

/* Captures. */

static int invalidate(Capture *capture, int error) {
  capture->is_invalid = 1;
  return error;
}
/* Whether a call that might disturb captures is forbidden, by the rules of cuThreadExchangeStreamCaptureMode. */
static Capture *forbidding_capture(void) {
  for (Capture *capture = captures; capture != NULL; capture = capture->next) {
    const int is_own = pthread_equal(capture->thread, pthread_self());
    if (thread_mode == MODE_RELAXED || capture->mode == MODE_RELAXED) continue;
    if (is_own || (thread_mode == MODE_GLOBAL && capture->mode == MODE_GLOBAL)) return capture;
  }
  return NULL;
}
int refuse_while_capturing(void) {
  Capture *capture = forbidding_capture();
  return capture == NULL ? SUCCESS : invalidate(capture, CAPTURE_UNSUPPORTED);
}
static int refuse_to_wait_for(Stream *stream) {
  return stream->capture != NULL ? invalidate(stream->capture, CAPTURE_UNSUPPORTED) : refuse_while_capturing();
}
int is_capturing(void *stream) { return stream_of(stream)->capture != NULL; }

static int add_dependencies(Dependencies *to, const Dependencies *from) {
  for (int k = 0; k < from->count; ++k) {
    if (to->count == MOST_DEPENDENCIES) return OUT_OF_MEMORY;
    to->nodes[to->count++] = from->nodes[k];
  }
  return SUCCESS;
}
static int capture_work(Stream *stream, const Work *work) {
  Capture *capture = stream->capture;
  Graph *graph = capture->graph;
  if (capture->is_invalid) return CAPTURE_INVALIDATED;
  if (graph->count == MOST_NODES) return invalidate(capture, OUT_OF_MEMORY);
  Node *made = &graph->nodes[graph->count];
  made->work = *work;
  made->after = stream->last;
  stream->last.count = 1;
  stream->last.nodes[0] = graph->count++;
  return SUCCESS;
}
int submit(void *handle, const Work *work) {
  Stream *stream = stream_of(handle);
  if (stream->capture != NULL) return capture_work(stream, work);
  if (stream->handle == NULL) {
    for (Capture *capture = captures; capture != NULL; capture = capture->next) {
      const int is_ordered = capture->origin->is_blocking && capture->origin->device == stream->device;
      if (is_ordered) return invalidate(capture, CAPTURE_IMPLICIT);
    }
  }
  return run_or_enqueue(stream, work);
}

static int is_joined(const Graph *graph, const Dependencies *last) {
  char *found = (char *)calloc((size_t)graph->count + 1, 1);
  int joined = 1;
  for (int k = 0; k < last->count; ++k) found[last->nodes[k]] = 1;
  for (int node = graph->count - 1; node >= 0; --node) { /* a node comes after what it depends on */
    if (!found[node]) joined = 0;
    const Dependencies *after = &graph->nodes[node].after;
    for (int k = 0; k < after->count; ++k) found[after->nodes[k]] = 1;
  }
  free(found);
  return joined;
}

EXPORT int cuStreamBeginCapture_v2(void *handle, int mode) {
  BEGIN_IN_CONTEXT("cuStreamBeginCapture")
  Stream *stream = stream_of(handle);
  note("cuStreamBeginCapture stream=%llu", (unsigned long long)(uintptr_t)handle);
  if (stream->handle == NULL) return CAPTURE_UNSUPPORTED; /* the legacy default stream */
  if (stream->capture != NULL) return INVALID_VALUE;
  Capture *made = (Capture *)calloc(1, sizeof(Capture));
  made->graph = (Graph *)calloc(1, sizeof(Graph));
  made->origin = stream;
  made->mode = mode;
  made->thread = pthread_self();
  lock(&lists);
  made->id = ++capture_count;
  made->next = captures;
  captures = made;
  unlock(&lists);
  stream->capture = made;
  stream->last.count = 0;
  return SUCCESS;
}
EXPORT int cuStreamEndCapture(void *handle, void **graph) {
  Stream *stream = stream_of(handle);
  Capture *capture = stream->capture;
  note("cuStreamEndCapture stream=%llu", (unsigned long long)(uintptr_t)handle);
  *graph = NULL;
  if (capture == NULL) return INVALID_VALUE;
  if (capture->origin != stream) return invalidate(capture, CAPTURE_UNMATCHED);
  if (capture->mode != MODE_RELAXED && !pthread_equal(capture->thread, pthread_self())) return CAPTURE_WRONG_THREAD;
  int status = capture->is_invalid ? CAPTURE_INVALIDATED : SUCCESS;
  if (status == SUCCESS && !is_joined(capture->graph, &stream->last)) status = CAPTURE_UNJOINED;
  lock(&lists);
  for (Capture **at = &captures; *at != NULL; at = &(*at)->next) {
    if (*at == capture) { *at = capture->next; break; }
  }
  for (Stream *other = streams; other != NULL; other = other->next) {
    if (other->capture == capture) other->capture = NULL;
  }
  unlock(&lists);
  if (status == SUCCESS) *graph = capture->graph;
  return status; /* a capture stays, as events may name it */
}
EXPORT int cuStreamIsCapturing(void *handle, int *status) {
  const Stream *stream = stream_of(handle);
  if (stream->handle == NULL) {
    for (Capture *capture = captures; capture != NULL; capture = capture->next) {
      if (capture->origin->is_blocking && capture->origin->device == stream->device) return CAPTURE_IMPLICIT;
    }
  }
  const Capture *capture = stream->capture;
  *status = capture == NULL ? STATUS_NONE : capture->is_invalid ? STATUS_INVALIDATED : STATUS_ACTIVE;
  return SUCCESS;
}
EXPORT int cuStreamGetCaptureInfo_v3(void *handle, int *status, uint64_t *id, void **graph, const void **dependencies,
                                     const void **edges, size_t *count) {
  const int result = cuStreamIsCapturing(handle, status);
  const Capture *capture = stream_of(handle)->capture;
  if (result != SUCCESS || capture == NULL) return result;
  if (id != NULL) *id = capture->id;
  if (graph != NULL) *graph = capture->graph;
  if (dependencies != NULL) *dependencies = NULL;
  if (edges != NULL) *edges = NULL;
  if (count != NULL) *count = 0;
  return SUCCESS;
}
EXPORT int cuThreadExchangeStreamCaptureMode(int *mode) {
  const int before = thread_mode;
  thread_mode = *mode;
  *mode = before;
  return SUCCESS;
}

/* Graphs. */

EXPORT int cuGraphGetNodes(void *graph, void **nodes, size_t *count) {
  if (nodes != NULL) return INVALID_VALUE; /* nobody needs them */
  *count = (size_t)((const Graph *)graph)->count;
  return SUCCESS;
}
EXPORT int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
  (void)flags;
  const int refused = refuse_while_capturing();
  if (refused != SUCCESS) return refused;
  *executable = malloc(sizeof(Graph));
  memcpy(*executable, graph, sizeof(Graph));
  return SUCCESS;
}
EXPORT int cuGraphLaunch(void *executable, void *stream) {
  BEGIN_IN_CONTEXT("cuGraphLaunch")
  note("cuGraphLaunch stream=%llu", (unsigned long long)(uintptr_t)stream);
  const Graph *graph = (const Graph *)executable;
  for (int k = 0; k < graph->count; ++k) {
    Work work = graph->nodes[k].work;
    work.stream = stream;
    const int status = submit(stream, &work);
    if (status != SUCCESS) return status;
  }
  return SUCCESS;
}
EXPORT int cuGraphDestroy(void *graph) { (void)graph; return SUCCESS; } /* its capture still names it */
EXPORT int cuGraphExecDestroy(void *executable) { free(executable); return SUCCESS; }

/* Streams. */

EXPORT int cuStreamCreateWithPriority(void **stream, unsigned int flags, int priority) {
  (void)priority;
  BEGIN_IN_CONTEXT("cuStreamCreate")
  Stream *made = new_stream(NULL, current_device(), 0);
  made->is_blocking = (flags & NON_BLOCKING) == 0;
  *stream = made->handle;
  return SUCCESS;
}
EXPORT int cuStreamDestroy_v2(void *stream) { return drain(stream_of(stream)); }
EXPORT int cuStreamSynchronize(void *handle) {
  BEGIN_IN_CONTEXT("cuStreamSynchronize")
  Stream *stream = stream_of(handle);
  note("cuStreamSynchronize stream=%llu", (unsigned long long)(uintptr_t)handle);
  const int refused = refuse_to_wait_for(stream);
  if (refused != SUCCESS) return refused;
  order_with_default_stream(stream);
  return drain(stream);
}
EXPORT int cuStreamQuery(void *handle) {
  BEGIN_IN_CONTEXT("cuStreamQuery")
  Stream *stream = stream_of(handle);
  note("cuStreamQuery stream=%llu", (unsigned long long)(uintptr_t)handle);
  const int refused = refuse_to_wait_for(stream);
  if (refused != SUCCESS) return refused;
  int status = SUCCESS;
  step(stream, &status); /* who asks often enough sees the end */
  return status != SUCCESS ? status : stream->first == NULL ? SUCCESS : NOT_READY;
}
EXPORT int cuCtxSynchronize(void) {
  BEGIN_IN_CONTEXT("cuCtxSynchronize")
  note("cuCtxSynchronize");
  const int refused = refuse_while_capturing();
  return refused != SUCCESS ? refused : drain_device(current_device());
}
static int run_callback(const Work *work) {
  work->callback(work->data);
  return SUCCESS;
}
EXPORT int cuLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
  BEGIN_IN_CONTEXT("cuLaunchHostFunc")
  Work work = {.run = run_callback, .callback = function, .data = data};
  return submit(stream, &work);
}

/* Events. */

static int run_record(const Work *work) {
  Event *event = (Event *)work->data;
  if (work->serial > event->done) event->done = work->serial;
  return SUCCESS;
}
static int wait_for(Event *event, Stream *stream, uint64_t serial) {
  int status = SUCCESS;
  while (event->done < serial && stream != NULL && step(stream, &status)) {}
  return status;
}
static int run_wait(const Work *work) { return wait_for((Event *)work->data, (Stream *)work->target, work->serial); }

EXPORT int cuEventCreate(void **event, unsigned int flags) {
  (void)flags;
  *event = calloc(1, sizeof(Event));
  return SUCCESS;
}
EXPORT int cuEventDestroy_v2(void *event) { (void)event; return SUCCESS; } /* work that waits may name it */
EXPORT int cuEventRecord(void *handle, void *on) {
  BEGIN_IN_CONTEXT("cuEventRecord")
  Event *event = (Event *)handle;
  Stream *stream = stream_of(on);
  note("cuEventRecord stream=%llu", (unsigned long long)(uintptr_t)on);
  event->capture = stream->capture;
  if (stream->capture != NULL) {
    event->last = stream->last;
    return stream->capture->is_invalid ? CAPTURE_INVALIDATED : SUCCESS;
  }
  event->stream = stream;
  Work work = {.run = run_record, .data = event, .serial = ++event->recorded};
  return submit(on, &work);
}
EXPORT int cuStreamWaitEvent(void *handle, void *awaited, unsigned int flags) {
  (void)flags;
  Event *event = (Event *)awaited;
  Stream *stream = stream_of(handle);
  note("cuStreamWaitEvent stream=%llu", (unsigned long long)(uintptr_t)handle);
  if (event->capture == NULL) {
    if (stream->capture != NULL) return invalidate(stream->capture, CAPTURE_ISOLATION);
    Work work = {.run = run_wait, .data = event, .target = event->stream, .serial = event->recorded};
    return submit(handle, &work);
  }
  if (event->capture->is_invalid) return CAPTURE_INVALIDATED;
  if (stream->capture != NULL && stream->capture != event->capture) {
    invalidate(event->capture, CAPTURE_MERGE);
    return invalidate(stream->capture, CAPTURE_MERGE);
  }
  if (stream->handle == NULL) return invalidate(event->capture, CAPTURE_IMPLICIT);
  if (stream->capture == NULL) stream->last.count = 0;
  stream->capture = event->capture; /* a stream joins a capture so */
  return add_dependencies(&stream->last, &event->last);
}
static int refuse_to_wait_for_event(const Event *event) {
  return event->capture != NULL ? invalidate(event->capture, CAPTURED_EVENT) : refuse_while_capturing();
}
EXPORT int cuEventQuery(void *handle) {
  Event *event = (Event *)handle;
  const int refused = refuse_to_wait_for_event(event);
  if (refused != SUCCESS) return refused;
  int status = SUCCESS;
  if (event->done < event->recorded) step(event->stream, &status);
  return status != SUCCESS ? status : event->done < event->recorded ? NOT_READY : SUCCESS;
}
EXPORT int cuEventSynchronize(void *handle) {
  Event *event = (Event *)handle;
  note("cuEventSynchronize");
  const int refused = refuse_to_wait_for_event(event);
  return refused != SUCCESS ? refused : wait_for(event, event->stream, event->recorded);
}
EXPORT int cuEventElapsedTime_v2(float *milliseconds, void *start, void *end) {
  (void)start; (void)end;
  *milliseconds = 1.0f;
  return SUCCESS;
}
