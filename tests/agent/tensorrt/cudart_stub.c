/* The calls of libcudart that edgepack makes, on the processor: ordinary memory, a counting clock, counters of what lives,
   and a failure at one call (environment STUB_FAIL, or the n-th with STUB_AFTER). It computes nothing and is no GPU. */
#include <stdlib.h>
#include <string.h>

static long live, calls;
static double now_ms;
static const char *failing;
static long after;

void stub_fail(const char *name, long count) { failing = name ? strdup(name) : 0; after = count; }
long stub_live(void) { return live; }
long stub_calls(void) { return calls; }

static int fails(const char *name) {
    calls++;
    now_ms += 0.25;
    return failing && !strcmp(failing, name) && after-- <= 0;
}
#define CALL(name) if (fails(#name)) return !strcmp(#name, "cudaGetDeviceCount") ? 35 : 2
static void *kept(size_t size) { live++; return calloc(1, size ? size : 1); }
static int freed(void *place) { if (place) { live--; free(place); } return 0; }

int cudaGetDeviceCount(int *count) { CALL(cudaGetDeviceCount); *count = 1; return 0; }
int cudaDeviceGetAttribute(int *value, int which, int device) {
    CALL(cudaDeviceGetAttribute);
    *value = which == 75 ? 8 : which == 76 ? 7 : which == 16 ? 8 : which == 18 ? 1 : 0;
    return device ? 101 : 0;
}
int cudaMemGetInfo(size_t *free_bytes, size_t *total) { CALL(cudaMemGetInfo); *free_bytes = 3UL << 30; *total = 8UL << 30; return 0; }
int cudaRuntimeGetVersion(int *version) { CALL(cudaRuntimeGetVersion); *version = 12060; return 0; }
int cudaDriverGetVersion(int *version) { CALL(cudaDriverGetVersion); *version = 12060; return 0; }
int cudaMalloc(void **place, size_t size) { CALL(cudaMalloc); *place = kept(size); return 0; }
int cudaFree(void *place) { return freed(place); }
int cudaHostAlloc(void **place, size_t size, unsigned flags) { CALL(cudaHostAlloc); *place = kept(size); return flags ? 1 : 0; }
int cudaFreeHost(void *place) { return freed(place); }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    CALL(cudaMemcpyAsync);
    if ((kind != 1 && kind != 2) || !stream) return 21;
    memcpy(to, from, size);
    return 0;
}
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { CALL(cudaStreamCreateWithFlags); *stream = kept(1); return flags == 1 ? 0 : 1; }
int cudaStreamSynchronize(void *stream) { CALL(cudaStreamSynchronize); return stream ? 0 : 400; }
int cudaStreamDestroy(void *stream) { return freed(stream); }
int cudaEventCreateWithFlags(void **event, unsigned flags) { CALL(cudaEventCreateWithFlags); *event = kept(sizeof(double)); return flags ? 1 : 0; }
int cudaEventRecord(void *event, void *stream) { CALL(cudaEventRecord); *(double *)event = now_ms; return stream ? 0 : 400; }
int cudaEventElapsedTime(float *ms, void *from, void *to) {
    CALL(cudaEventElapsedTime);
    *ms = (float)(*(double *)to - *(double *)from);
    return *ms > 0 ? 0 : 600;
}
int cudaEventDestroy(void *event) { return freed(event); }
const char *cudaGetErrorName(int code) { return code == 2 ? "cudaErrorMemoryAllocation" : code == 35 ? "cudaErrorInsufficientDriver" : "stubError"; }
const char *cudaGetErrorString(int code) { return code == 2 ? "out of memory" : "stub"; }
