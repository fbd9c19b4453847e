"""Programs compiled for each Cortex-M run on it, and their instruction counts repeat and follow the work."""

import json

import pytest

from tests.device.bench.mcu import MCUS, CompileError, compile_c, run, why_not

pytestmark = [pytest.mark.device, pytest.mark.skipif(bool(why_not()), reason=why_not())]

DOT = """
#include <stdio.h>
#include "bench.h"
static int8_t a[256], b[256];
static int dot(int rounds) {
    int sum = 0;
    for (int r = 0; r < rounds; r++) {
        for (int i = 0; i < 256; i++) sum += a[i] * b[i];
        __asm__ volatile("" : : : "memory");
    }
    return sum;
}
int main(void) {
    for (int i = 0; i < 256; i++) { a[i] = (int8_t)i; b[i] = (int8_t)(3 * i); }
    uint64_t start = bench_ticks();
    int sum = dot(1000);
    uint64_t middle = bench_ticks();
    dot(1010);
    uint64_t end = bench_ticks();
    printf("{\\"cpuid\\": %lu, \\"sum\\": %d, \\"thousand\\": %lu, \\"one_percent_more\\": %lu}\\n",
           *(volatile unsigned long *)0xE000ED00u, sum, (unsigned long)(middle - start), (unsigned long)(end - middle));
    return 7;
}
"""
PARTS = {"cortex-m3": 0xC23, "cortex-m4": 0xC24, "cortex-m7": 0xC27, "cortex-m55": 0xD22}


@pytest.fixture(params=sorted(MCUS))
def mcu(request):
    return MCUS[request.param]


@pytest.fixture
def build(mcu, tmp_path):
    def compile_(text, options=("-O2",)):
        source = tmp_path / "program.c"
        source.write_text(text)
        return compile_c(mcu, [source], tmp_path / "program.elf", options)

    return compile_


def test_dot_product_counts(mcu, build):
    program = build(DOT)
    first, second = (run(mcu, program) for _ in range(2))
    assert first.status == 7, first.talk
    said = json.loads(first.output)
    assert said["cpuid"] >> 4 & 0xFFF == PARTS[mcu.name]
    expected = sum(((i + 128) % 256 - 128) * ((3 * i + 128) % 256 - 128) for i in range(256)) * 1000
    assert said["sum"] == expected
    assert first == second  # to the last instruction
    count = mcu.instructions(said["thousand"])
    assert 16_000 <= count <= 3_000_000  # 256000 products: at least 16 in one instruction, at most a dozen for each
    assert said["one_percent_more"] / said["thousand"] == pytest.approx(1.01, abs=1e-3)


def test_floats_and_long_runs(mcu, build):
    done = run(
        mcu,
        build("""
        #include <stdio.h>
        #include <math.h>
        #include "bench.h"
        int main(void) {
            volatile float x = 2.0f;
            for (volatile int i = 0; i < 8000000; i++) {}  /* the 24 bits of SysTick wrap */
            printf("%d %d\\n", (int)(1000 * sqrtf(x)), bench_ticks() > 0x1000000);
            return 0;
        }"""),
    )
    assert (done.status, done.output) == (0, "1414 1\n")


def test_a_fault_is_told_apart(mcu, build):
    assert run(mcu, build("int main(void) { return *(volatile int *)0xF0000000u; }", ["-O0"])).status == 99


def test_what_the_compiler_refuses(build):
    with pytest.raises(CompileError, match="no_such_thing"):
        build("int main(void) { return no_such_thing; }")
