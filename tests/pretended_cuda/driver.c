/* A CUDA runtime and driver that answer and compute nothing.

   Preloaded, it makes torch believe that there is one GPU. Nothing may be
   computed there: tensors.py keeps the data on the CPU. Every function returns
   0, which is success. */
#include <stdlib.h>
#include <string.h>

#define ANSWER(name, arguments, body) int name arguments { body return 0; }
#define SUCCEED(name) int name() { return 0; }

static int context(int device, unsigned *flags, int *active) {
    *flags = 0;
    *active = 1;
    return 0;
}
static int nothing() { return 0; }
#define ENTRY *found = strstr(name, "PrimaryCtxGetState") \
    ? (void *)context : (void *)nothing; if (status) *status = 0;

ANSWER(cudaGetDeviceCount, (int *count), *count = 1;)
ANSWER(cudaGetDevice, (int *device), *device = 0;)
ANSWER(cudaDriverGetVersion, (int *version), *version = 99000;)
ANSWER(cudaRuntimeGetVersion, (int *version), *version = 13000;)
ANSWER(cudaDeviceGetAttribute, (int *value, int which, int device), *value = 0;)
ANSWER(cudaDeviceGetStreamPriorityRange, (int *a, int *b), *a = 0; *b = -5;)
ANSWER(cudaMemGetInfo, (size_t *all, size_t *left), *all = *left = 1UL << 36;)
ANSWER(cudaStreamCreateWithPriority, (void **s, int f, int p), *s = (void *)16;)
ANSWER(cudaStreamIsCapturing, (void *stream, int *status), *status = 0;)
ANSWER(cudaEventCreate, (void **event), *event = (void *)32;)
ANSWER(cudaEventCreateWithFlags, (void **event, int f), *event = (void *)32;)
ANSWER(cudaMalloc, (void **p, size_t size), *p = malloc(size);)
ANSWER(cudaFree, (void *p), free(p);)
ANSWER(cudaHostAlloc, (void **p, size_t size, int flags), *p = malloc(size);)
ANSWER(cudaFreeHost, (void *p), free(p);)
ANSWER(cudaMemcpyAsync, (void *to, void *from, size_t size, int kind, void *s),
       memcpy(to, from, size);)
ANSWER(cudaPointerGetAttributes, (void *found, void *p), memset(found, 0, 24);)
ANSWER(cudaGetDeviceProperties, (char *found, int d), memset(found, 0, 512);)
ANSWER(cudaGetDriverEntryPoint,
       (char *name, void **found, long flags, int *status), ENTRY)
ANSWER(cudaGetDriverEntryPointByVersion,
       (char *name, void **found, int version, long flags, int *status), ENTRY)
ANSWER(cuDevicePrimaryCtxGetState, (int d, unsigned *flags, int *active),
       context(d, flags, active);)
ANSWER(cuCtxGetCurrent, (void **context), *context = (void *)1;)
ANSWER(cuDeviceGetCount, (int *count), *count = 1;)
int cuPointerGetAttribute() { return 1; }

SUCCEED(cuInit)
SUCCEED(cudaSetDevice)
SUCCEED(cudaGetLastError)
SUCCEED(cudaPeekAtLastError)
SUCCEED(cudaDeviceCanAccessPeer)
SUCCEED(cudaDeviceSynchronize)
SUCCEED(cudaStreamGetCaptureInfo)
SUCCEED(cudaStreamQuery)
SUCCEED(cudaStreamSynchronize)
SUCCEED(cudaStreamWaitEvent)
SUCCEED(cudaEventDestroy)
SUCCEED(cudaEventRecord)
SUCCEED(cudaEventRecordWithFlags)
SUCCEED(cudaEventQuery)
SUCCEED(cudaEventSynchronize)
SUCCEED(cudaLaunchKernel)
SUCCEED(cudaMemsetAsync)
SUCCEED(cudaThreadExchangeStreamCaptureMode)
