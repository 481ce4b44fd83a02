/* A stand-in for the CUDA driver (libcuda.so.1): one GPU, whose memory is the host's and whose streams are threads.
 *
 * It proves what a driver's user does: which calls, in what order, by which thread, and that everything is given back.
 * It proves no kernel and no speed. A caller's mistake is answered with the error code of the real driver, counted, and
 * the first one is kept in words (fakecuda_first_misuse). Errors are injected by the name of a call; what is alive is
 * counted. It is longer than other files because a shared library with one state is easier to follow in one file.
 *
 *     cc -shared -fPIC -pthread -Wl,-soname,libcuda.so.1 -o libcuda.so.1 driver.c -ldl
 *
 * Environment, read when the library is loaded:
 *     FAKE_CUDA_PRESENT=0        the machine has no GPU
 *     FAKE_CUDA_INTEGRATED=0     a GPU with memory of its own; the default is integrated, as on a Jetson
 *     FAKE_CUDA_MEMORY=N         bytes that can be allocated
 *     FAKE_CUDA_FAULTS=...       as fakecuda_configure takes them
 *     FAKE_CUDA_REPORT=FILE      at its end a process that used a context adds a line with what is left of it
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
typedef uint64_t CUdeviceptr;

/* CUresult, from cuda.h */
enum {
  SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
  NOT_FOUND = 500, NOT_READY = 600, CONTEXT_IS_DESTROYED = 709, NOT_SUPPORTED = 801
};
/* CUdevice_attribute, from cuda.h */
enum { MULTIPROCESSORS = 16, INTEGRATED = 18, CAN_MAP_HOST = 19, UNIFIED_ADDRESSING = 41, MAJOR = 75, MINOR = 76 };
enum { DRIVER_VERSION = 12060, DEVICE_ALIGNMENT = 256, PAGE = 4096, MAX_DEPTH = 32, MAX_FAULTS = 32, NAME = 64 };
enum { FRESH_DEVICE = 0xEE, FRESH_HOST = 0xDD }; /* new memory is never zero */

/* ---- State ---- */

struct block { CUdeviceptr address; size_t size; int on_host; struct block *next; };

struct event { int done; struct event *next; };

struct work {
  enum { COPY, KERNEL, MARK } kind;
  void *to, *from;
  size_t size;
  void (*function)(void *);
  void *argument;
  struct event *event;
  struct work *next;
};

struct stream { struct work *first, *last; pthread_t thread; int ends; struct stream *next; };

struct fault { char name[NAME]; int code, skip, times, sticky; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct block *blocks;
static struct stream *streams;
static struct event *events;
static struct fault faults[MAX_FAULTS];
static int fault_count, retained, ever_retained, sticky_code, misuses, present = 1, integrated = 1;
static size_t device_bytes, host_bytes, memory_limit = (size_t)8 << 30;
static char first_misuse[200];
static long calls;
static char PRIMARY[8]; /* its address is the handle of the primary context */
static __thread void *stack[MAX_DEPTH];
static __thread int depth;

static CUresult misuse(CUresult code, const char *format, ...) {
  va_list values;
  va_start(values, format);
  pthread_mutex_lock(&lock);
  if (misuses++ == 0) vsnprintf(first_misuse, sizeof first_misuse, format, values);
  pthread_mutex_unlock(&lock);
  va_end(values);
  return code;
}

/* Return the code that a call is to fail with; 0 where it may go on. */
static CUresult injected(const char *name) {
  CUresult code = SUCCESS;
  pthread_mutex_lock(&lock);
  calls++;
  for (int i = 0; i < fault_count && code == SUCCESS; i++) {
    struct fault *fault = &faults[i];
    if (strcmp(fault->name, name) != 0 || fault->times == 0) continue;
    if (fault->skip > 0) { fault->skip--; continue; }
    if (fault->times > 0) fault->times--;
    code = fault->code;
    if (fault->sticky) sticky_code = code;
  }
  pthread_mutex_unlock(&lock);
  return code;
}

#define ENTER                                    \
  do {                                           \
    CUresult injected_code = injected(__func__); \
    if (injected_code) return injected_code;     \
  } while (0)

/* Calls on a context: one must be current, alive, and not have failed before. */
#define ENTER_CONTEXT                                                                                    \
  do {                                                                                                   \
    ENTER;                                                                                               \
    if (depth == 0) return misuse(INVALID_CONTEXT, "%s with no current context", __func__);              \
    if (retained == 0) return misuse(CONTEXT_IS_DESTROYED, "%s after the context's end", __func__);      \
    if (sticky_code) return sticky_code;                                                                 \
  } while (0)

/* ---- What tests ask for ---- */

/* "NAME:CODE[:SKIP[:TIMES[:sticky]]];...": the call NAME fails with CODE after SKIP calls, TIMES times (-1: always).
 * A sticky error is also the answer of every later call on the context. NAME "kernel" fails the work of a stream. */
int fakecuda_configure(const char *text) {
  char copy[1024], *rest = copy, *one;
  pthread_mutex_lock(&lock);
  fault_count = 0;
  snprintf(copy, sizeof copy, "%s", text ? text : "");
  while ((one = strsep(&rest, ";")) != NULL && fault_count < MAX_FAULTS) {
    struct fault fault = {"", 0, 0, 1, 0};
    char kind[NAME] = "";
    int found = sscanf(one, "%63[^:]:%d:%d:%d:%63s", fault.name, &fault.code, &fault.skip, &fault.times, kind);
    fault.sticky = strcmp(kind, "sticky") == 0;
    if (found >= 2) faults[fault_count++] = fault;
  }
  pthread_mutex_unlock(&lock);
  return fault_count;
}

void fakecuda_set(const char *name, long value) {
  if (strcmp(name, "present") == 0) present = (int)value;
  if (strcmp(name, "integrated") == 0) integrated = (int)value;
  if (strcmp(name, "memory") == 0) memory_limit = (size_t)value;
}

/* Forget what earlier tests left; nothing may be under way. */
void fakecuda_reset(void) {
  fakecuda_configure("");
  pthread_mutex_lock(&lock);
  misuses = 0;
  calls = 0;
  first_misuse[0] = 0;
  memory_limit = (size_t)8 << 30;
  integrated = 1;
  pthread_mutex_unlock(&lock);
}

static long length_of_streams(void) { long n = 0; for (struct stream *s = streams; s; s = s->next) n++; return n; }
static long length_of_events(void) { long n = 0; for (struct event *e = events; e; e = e->next) n++; return n; }

long fakecuda_count(const char *what) {
  pthread_mutex_lock(&lock);
  long found = strcmp(what, "contexts") == 0       ? retained
               : strcmp(what, "streams") == 0      ? length_of_streams()
               : strcmp(what, "events") == 0       ? length_of_events()
               : strcmp(what, "device_bytes") == 0 ? (long)device_bytes
               : strcmp(what, "host_bytes") == 0   ? (long)host_bytes
               : strcmp(what, "misuses") == 0      ? misuses
               : strcmp(what, "calls") == 0        ? calls
                                                   : -1;
  pthread_mutex_unlock(&lock);
  return found;
}

/* Wait until every stream is idle; freeing what running work uses is a mistake, unless all is lost anyway. */
void fakecuda_wait_idle(const char *what) {
  int busy = 0;
  pthread_mutex_lock(&lock);
  for (struct stream *s = streams; s; s = s->next)
    while (s->first) { busy = 1; pthread_cond_wait(&changed, &lock); }
  pthread_mutex_unlock(&lock);
  if (busy && !sticky_code) misuse(0, "%s was freed while its work was under way", what);
}

const char *fakecuda_first_misuse(void) { return first_misuse; }

__attribute__((constructor)) static void read_environment(void) {
  const char *value;
  if ((value = getenv("FAKE_CUDA_PRESENT")) != NULL) present = atoi(value);
  if ((value = getenv("FAKE_CUDA_INTEGRATED")) != NULL) integrated = atoi(value);
  if ((value = getenv("FAKE_CUDA_MEMORY")) != NULL) memory_limit = strtoull(value, NULL, 10);
  fakecuda_configure(getenv("FAKE_CUDA_FAULTS"));
}

__attribute__((destructor)) static void write_report(void) {
  const char *path = getenv("FAKE_CUDA_REPORT");
  FILE *file = path && ever_retained ? fopen(path, "a") : NULL;
  if (file == NULL) return;
  fprintf(file, "contexts %d, device bytes %zu, host bytes %zu, mistakes %d %s\n", retained, device_bytes, host_bytes, misuses, first_misuse);
  fclose(file);
}

/* ---- Device ---- */

CUresult cuInit(unsigned flags) { ENTER; return flags ? INVALID_VALUE : present ? SUCCESS : NO_DEVICE; }
CUresult cuDriverGetVersion(int *version) { ENTER; *version = DRIVER_VERSION; return SUCCESS; }
CUresult cuDeviceGetCount(int *count) { ENTER; *count = present; return SUCCESS; }
CUresult cuDeviceGet(int *device, int number) { ENTER; *device = number; return number ? INVALID_DEVICE : SUCCESS; }
CUresult cuDeviceTotalMem_v2(size_t *size, int device) { ENTER; (void)device; *size = memory_limit; return SUCCESS; }

CUresult cuDeviceGetName(char *name, int size, int device) {
  ENTER;
  (void)device;
  snprintf(name, (size_t)size, "Orin");
  return SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, int attribute, int device) {
  ENTER;
  (void)device;
  switch (attribute) {
    case MULTIPROCESSORS: *value = 8; break;
    case INTEGRATED: *value = integrated; break;
    case CAN_MAP_HOST: case UNIFIED_ADDRESSING: *value = 1; break;
    case MAJOR: *value = 8; break;
    case MINOR: *value = 7; break;
    default: *value = 0;
  }
  return SUCCESS;
}

/* ---- The primary context, and the stack of contexts of each thread ---- */

static void end_context(void);

CUresult cuDevicePrimaryCtxRetain(void **context, int device) {
  ENTER;
  if (device) return INVALID_DEVICE;
  pthread_mutex_lock(&lock);
  retained++;
  ever_retained = 1;
  pthread_mutex_unlock(&lock);
  *context = PRIMARY;
  return SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(int device) {
  ENTER;
  (void)device;
  if (retained == 0) return misuse(INVALID_CONTEXT, "the primary context was released twice");
  if (retained == 1) end_context();
  pthread_mutex_lock(&lock);
  retained--;
  pthread_mutex_unlock(&lock);
  return SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(int device) { return cuDevicePrimaryCtxRelease_v2(device); }

CUresult cuCtxPushCurrent_v2(void *context) {
  ENTER;
  if (depth == MAX_DEPTH) return misuse(INVALID_VALUE, "contexts are pushed and never popped");
  stack[depth++] = context;
  return SUCCESS;
}

CUresult cuCtxPopCurrent_v2(void **context) {
  ENTER;
  if (depth == 0) return misuse(INVALID_CONTEXT, "a context is popped where none is current");
  depth--;
  if (context) *context = stack[depth];
  return SUCCESS;
}

CUresult cuCtxGetCurrent(void **context) { ENTER; *context = depth ? stack[depth - 1] : NULL; return SUCCESS; }
CUresult cuCtxSetCurrent(void *context) {
  ENTER;
  if (depth) depth--;
  if (context) stack[depth++] = context;
  return SUCCESS;
}
CUresult cuCtxGetDevice(int *device) { ENTER_CONTEXT; *device = 0; return SUCCESS; }
CUresult cuCtxGetApiVersion(void *context, unsigned *version) {
  ENTER;
  (void)context;
  *version = DRIVER_VERSION;
  return SUCCESS;
}

/* ---- Memory ---- */

static CUresult new_block(CUdeviceptr *address, size_t size, int on_host) {
  size_t alignment = on_host ? PAGE : DEVICE_ALIGNMENT;
  if (size == 0) return INVALID_VALUE;
  pthread_mutex_lock(&lock);
  size_t held = device_bytes + (integrated ? host_bytes : 0);
  int full = held + size > memory_limit && (!on_host || integrated);
  pthread_mutex_unlock(&lock);
  if (full) return OUT_OF_MEMORY;
  void *memory = aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  struct block *block = malloc(sizeof *block);
  if (memory == NULL || block == NULL) return OUT_OF_MEMORY;
  memset(memory, on_host ? FRESH_HOST : FRESH_DEVICE, size);
  pthread_mutex_lock(&lock);
  *block = (struct block){(CUdeviceptr)memory, size, on_host, blocks};
  blocks = block;
  *(on_host ? &host_bytes : &device_bytes) += size;
  pthread_mutex_unlock(&lock);
  *address = (CUdeviceptr)memory;
  return SUCCESS;
}

static int free_block(CUdeviceptr address, int on_host) {
  int found = 0;
  pthread_mutex_lock(&lock);
  for (struct block **at = &blocks; *at && !found; at = found ? at : &(*at)->next)
    if ((*at)->address == address && (*at)->on_host == on_host) {
      struct block *block = *at;
      *at = block->next;
      *(on_host ? &host_bytes : &device_bytes) -= block->size;
      free(block);
      free((void *)address);
      found = 1;
    }
  pthread_mutex_unlock(&lock);
  return found;
}

static int inside(CUdeviceptr address, size_t size, int on_host) {
  int found = 0;
  pthread_mutex_lock(&lock);
  for (struct block *b = blocks; b; b = b->next)
    found |= b->on_host == on_host && address >= b->address && address + size <= b->address + b->size;
  pthread_mutex_unlock(&lock);
  return found;
}

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size) { ENTER_CONTEXT; return new_block(address, size, 0); }
CUresult cuMemFree_v2(CUdeviceptr address) {
  ENTER_CONTEXT;
  return free_block(address, 0) ? SUCCESS : misuse(INVALID_VALUE, "memory is freed that is not the device's");
}
CUresult cuMemHostAlloc(void **address, size_t size, unsigned flags) {
  ENTER_CONTEXT;
  (void)flags;
  return new_block((CUdeviceptr *)address, size, 1);
}
CUresult cuMemAllocHost_v2(void **address, size_t size) { return cuMemHostAlloc(address, size, 0); }
CUresult cuMemFreeHost(void *address) {
  ENTER_CONTEXT;
  return free_block((CUdeviceptr)address, 1) ? SUCCESS : misuse(INVALID_VALUE, "host memory is freed that is not pinned");
}
CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *device, void *host, unsigned flags) {
  ENTER_CONTEXT;
  (void)flags;
  if (!inside((CUdeviceptr)host, 1, 1)) return misuse(INVALID_VALUE, "memory is mapped that is not pinned");
  *device = (CUdeviceptr)host;
  return SUCCESS;
}
CUresult cuMemGetInfo_v2(size_t *left, size_t *total) {
  ENTER_CONTEXT;
  *left = memory_limit - device_bytes;
  *total = memory_limit;
  return SUCCESS;
}
CUresult cuPointerGetAttribute(void *data, int attribute, CUdeviceptr address) {
  ENTER;
  (void)data, (void)attribute, (void)address;
  return INVALID_VALUE;
}

/* ---- Streams: one thread each, which does the work in its order ---- */

static void *run_stream(void *argument) {
  struct stream *stream = argument;
  pthread_mutex_lock(&lock);
  for (;;) {
    while (stream->first == NULL && !stream->ends) pthread_cond_wait(&changed, &lock);
    struct work *work = stream->first;
    if (work == NULL) break;
    int lost = sticky_code != 0;
    pthread_mutex_unlock(&lock);
    if (work->kind == COPY && !lost) memcpy(work->to, work->from, work->size);
    if (work->kind == KERNEL && !lost) {
      CUresult code = injected("kernel");
      if (code) sticky_code = code;
      else work->function(work->argument);
    }
    pthread_mutex_lock(&lock);
    if (work->kind == MARK) work->event->done = 1;
    stream->first = work->next;
    if (stream->first == NULL) stream->last = NULL;
    free(work);
    pthread_cond_broadcast(&changed);
  }
  pthread_mutex_unlock(&lock);
  return NULL;
}

static CUresult queue(struct stream *stream, struct work one) {
  struct work *work = malloc(sizeof *work);
  *work = one;
  pthread_mutex_lock(&lock);
  if (stream->last) stream->last->next = work;
  else stream->first = work;
  stream->last = work;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  return SUCCESS;
}

static void drop_stream(struct stream *stream) {
  pthread_mutex_lock(&lock);
  stream->ends = 1;
  pthread_cond_broadcast(&changed);
  for (struct stream **at = &streams; *at; at = &(*at)->next)
    if (*at == stream) { *at = stream->next; break; }
  pthread_mutex_unlock(&lock);
  pthread_join(stream->thread, NULL);
  free(stream);
}

CUresult cuStreamCreate(void **handle, unsigned flags) {
  ENTER_CONTEXT;
  (void)flags;
  struct stream *stream = calloc(1, sizeof *stream);
  pthread_create(&stream->thread, NULL, run_stream, stream);
  pthread_mutex_lock(&lock);
  stream->next = streams;
  streams = stream;
  pthread_mutex_unlock(&lock);
  *handle = stream;
  return SUCCESS;
}
CUresult cuStreamDestroy_v2(struct stream *stream) { ENTER_CONTEXT; drop_stream(stream); return SUCCESS; }
CUresult cuStreamSynchronize(struct stream *stream) {
  ENTER_CONTEXT;
  pthread_mutex_lock(&lock);
  while (stream->first) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
  return sticky_code;
}
CUresult cuCtxSynchronize(void) { ENTER_CONTEXT; return SUCCESS; }

static CUresult copy(struct stream *stream, void *to, void *from, size_t size, CUdeviceptr device, void *host) {
  if (!inside((CUdeviceptr)host, size, 1)) return misuse(INVALID_VALUE, "%zu bytes are copied of memory that is not pinned", size);
  if (!inside(device, size, 0)) return misuse(INVALID_VALUE, "%zu bytes are copied beyond the device's memory", size);
  return queue(stream, (struct work){.kind = COPY, .to = to, .from = from, .size = size});
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr device, void *host, size_t size, struct stream *stream) {
  ENTER_CONTEXT;
  return copy(stream, (void *)device, host, size, device, host);
}
CUresult cuMemcpyDtoHAsync_v2(void *host, CUdeviceptr device, size_t size, struct stream *stream) {
  ENTER_CONTEXT;
  return copy(stream, host, (void *)device, size, device, host);
}
CUresult cuLaunchHostFunc(struct stream *stream, void (*function)(void *), void *argument) {
  ENTER_CONTEXT;
  return queue(stream, (struct work){.kind = KERNEL, .function = function, .argument = argument});
}

/* ---- Events ---- */

CUresult cuEventCreate(void **handle, unsigned flags) {
  ENTER_CONTEXT;
  (void)flags;
  struct event *event = calloc(1, sizeof *event);
  event->done = 1;
  pthread_mutex_lock(&lock);
  event->next = events;
  events = event;
  pthread_mutex_unlock(&lock);
  *handle = event;
  return SUCCESS;
}
CUresult cuEventRecord(struct event *event, struct stream *stream) {
  ENTER_CONTEXT;
  event->done = 0;
  return queue(stream, (struct work){.kind = MARK, .event = event});
}
CUresult cuEventSynchronize(struct event *event) {
  ENTER_CONTEXT;
  pthread_mutex_lock(&lock);
  while (!event->done) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
  return sticky_code;
}
CUresult cuEventQuery(struct event *event) { ENTER_CONTEXT; return event->done ? SUCCESS : NOT_READY; }
CUresult cuEventDestroy_v2(struct event *event) {
  ENTER_CONTEXT;
  pthread_mutex_lock(&lock);
  struct event **at = &events;
  while (*at && *at != event) at = &(*at)->next;
  int known = *at != NULL;
  if (known) *at = event->next;
  pthread_mutex_unlock(&lock);
  if (!known) return misuse(INVALID_VALUE, "an event is destroyed twice");
  free(event);
  return SUCCESS;
}

/* What is left when the last owner releases the context goes with it, as in the real driver; it is a mistake of the
 * owner, unless a sticky error kept it from giving anything back. */
static void end_context(void) {
  int left = blocks != NULL || streams != NULL || events != NULL;
  if (left && !sticky_code && fault_count == 0) misuse(0, "%zu bytes of the device were left when the context ended", device_bytes + host_bytes);
  while (streams) drop_stream(streams);
  while (blocks) free_block(blocks->address, blocks->on_host);
  while (events) {
    struct event *event = events;
    events = event->next;
    free(event);
  }
  sticky_code = 0;
}

/* ---- Errors, and the table of functions ---- */

CUresult cuGetErrorString(CUresult code, const char **text) {
  *text = code == OUT_OF_MEMORY ? "out of memory" : "an error of the stand-in";
  return SUCCESS;
}
CUresult cuGetErrorName(CUresult code, const char **text) {
  *text = code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_INJECTED";
  return SUCCESS;
}

#include "unsupported.h"

CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
  static const char *const SUFFIXES[] = {"_v2", ""};
  Dl_info here;
  (void)version, (void)flags;
  *function = NULL;
  void *self = dladdr((void *)cuInit, &here) ? dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD) : NULL;
  for (int i = 0; self && i < 2 && *function == NULL; i++) {
    char symbol[2 * NAME];
    snprintf(symbol, sizeof symbol, "%s%s", name, SUFFIXES[i]);
    *function = dlsym(self, symbol);
  }
  if (self) dlclose(self);
  if (status) *status = *function ? 0 : 1;
  return *function ? SUCCESS : NOT_FOUND;
}
CUresult cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
