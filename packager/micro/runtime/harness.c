/* Runs the golden inputs and tells what came out, how many ticks each took, and how deep the stack went. */
#include <stdio.h>
#include <string.h>
#include "bench.h"
#include "model.h"
#include "golden.h"

#define STACK_LOOKED_AT 8192u /* bytes below main's frame */
#define PATTERN 0xA5A5C3C3u

static volatile uint32_t *paint(void)
{
    volatile uint32_t *top = (volatile uint32_t *)((uintptr_t)__builtin_frame_address(0) - 256);
    for (uint32_t i = 1; i <= STACK_LOOKED_AT / 4; i++)
        top[-(int32_t)i] = PATTERN;
    return top;
}

static uint32_t depth(volatile uint32_t *top)
{
    for (uint32_t i = STACK_LOOKED_AT / 4; i > 0; i--)
        if (top[-(int32_t)i] != PATTERN)
            return i * 4 + 256;
    return 256;
}

int main(void)
{
    uint32_t deepest = 0;
    for (int sample = 0; sample < GOLDEN_SAMPLES; sample++) {
        memcpy(model_input(), golden_inputs + sample * MODEL_INPUT_SIZE, MODEL_INPUT_SIZE);
        volatile uint32_t *top = paint();
        uint64_t start = bench_ticks();
        model_run();
        uint64_t end = bench_ticks();
        uint32_t used = depth(top);
        if (used > deepest)
            deepest = used;
        printf("ticks %lu\noutput", (unsigned long)(end - start));
        const int8_t *out = model_output();
        for (int i = 0; i < MODEL_OUTPUT_SIZE; i++)
            printf(" %d", out[i]);
        printf("\n");
    }
    printf("stack %lu\n", (unsigned long)deepest);
    return 0;
}
