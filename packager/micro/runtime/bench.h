/* For programs on the bench's microcontrollers: main() may printf, its return value becomes the exit status. */
#ifndef BENCH_H
#define BENCH_H
#include <stdint.h>

#define BENCH_FAULT 99 /* exit status after a processor fault */

/* A clock that only runs forward; `Mcu.instructions(ticks)` on the host says what a difference is worth. */
uint64_t bench_ticks(void);

#endif
