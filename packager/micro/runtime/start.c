/* What a bare Cortex-M needs before main(): vectors, memory, FPU or MVE, standard output by semihosting, and a clock.
 *
 * Under qemu's -icount the clock counts instructions: SysTick falls by one for every bench_tick_ns() of virtual time, and
 * each instruction takes a fixed time. The host turns ticks into instructions, as it knows both.
 */
#include <stdint.h>
#include "bench.h"

#define SYST_CSR (*(volatile uint32_t *)0xE000E010u)
#define SYST_RVR (*(volatile uint32_t *)0xE000E014u)
#define SYST_CVR (*(volatile uint32_t *)0xE000E018u)
#define ICSR (*(volatile uint32_t *)0xE000ED04u)
#define CPACR (*(volatile uint32_t *)0xE000ED88u)
#define PENDSTSET (1u << 26)
#define SYST_PERIOD 0x1000000u /* 24 bits */

#define SYS_EXIT_EXTENDED 0x20
#define ADP_STOPPED_APPLICATION_EXIT 0x20026u

extern uint32_t __stack_top, __data_load, __data_start, __data_end, __bss_start, __bss_end;
extern int main(void);
extern void initialise_monitor_handles(void);

static volatile uint32_t wraps;

static void leave(uint32_t status)
{
    volatile uint32_t block[2] = {ADP_STOPPED_APPLICATION_EXIT, status};
    register uint32_t operation __asm__("r0") = SYS_EXIT_EXTENDED;
    register volatile uint32_t *argument __asm__("r1") = block;
    __asm__ volatile("bkpt 0xab" : : "r"(operation), "r"(argument) : "memory");
    for (;;) {
    }
}

uint64_t bench_ticks(void)
{
    uint32_t before, value, after;
    do { /* a wrap between the readings would be counted for the wrong one */
        before = wraps;
        value = SYST_CVR;
        after = wraps;
    } while (before != after || (ICSR & PENDSTSET));
    return (uint64_t)before * SYST_PERIOD + (SYST_PERIOD - 1 - value);
}

static void tick(void)
{
    wraps++;
}

static void fault(void)
{
    leave(BENCH_FAULT);
}

static void reset(void)
{
    uint32_t *from = &__data_load;
    for (uint32_t *to = &__data_start; to < &__data_end;)
        *to++ = *from++;
    for (uint32_t *to = &__bss_start; to < &__bss_end;)
        *to++ = 0;
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    CPACR |= 0xFu << 20; /* coprocessors 10 and 11: without them the first float instruction faults */
    __asm__ volatile("dsb\n\tisb");
#endif
    initialise_monitor_handles();
    SYST_RVR = SYST_PERIOD - 1;
    SYST_CVR = 0;
    SYST_CSR = 7; /* processor clock, interrupt, on */
    leave((uint32_t)main());
}

/* 1 reset, 2 NMI, 3 to 7 faults, 11 SVC, 15 SysTick */
__attribute__((section(".vectors"), used)) void (*const vectors[16])(void) = {
    (void (*)(void))&__stack_top, reset, fault, fault, fault, fault, fault, fault, 0, 0, 0, fault, 0, 0, fault, tick,
};
