"""Programs compiled for each Cortex-M run on it, and their instruction counts repeat and follow the work."""

import json
import shutil

import pytest

from agent.contract.errors import DeviceError, UsageError
from packager.micro.board import BOARDS, COMPILER, EMULATOR, compile_program, find_board, run_program

MISSING = [name for name in (COMPILER, EMULATOR) if not shutil.which(name)]
pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]

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
    return 0;
}
"""
PARTS = {"cortex-m3": 0xC23, "cortex-m4": 0xC24, "cortex-m7": 0xC27, "cortex-m55": 0xD22}


@pytest.fixture(params=sorted(BOARDS))
def board(request):
    return BOARDS[request.param]


@pytest.fixture
def build(board, tmp_path):
    def compile_(text):
        (tmp_path / "program.c").write_text(text)
        compile_program(board, [tmp_path / "program.c"], tmp_path / "program.elf")
        return tmp_path / "program.elf"

    return compile_


def test_dot_product_counts(board, build):
    program = build(DOT)
    first, second = (run_program(board, program) for _ in range(2))
    said = json.loads(first)
    assert said["cpuid"] >> 4 & 0xFFF == PARTS[board.name]
    expected = sum(((i + 128) % 256 - 128) * ((3 * i + 128) % 256 - 128) for i in range(256)) * 1000
    assert said["sum"] == expected
    assert first == second  # to the last instruction
    count = board.instructions(said["thousand"])
    assert 16_000 <= count <= 3_000_000  # 256000 products: at least 16 in one instruction, at most a dozen for each
    assert said["one_percent_more"] / said["thousand"] == pytest.approx(1.01, abs=1e-3)


def test_floats_and_long_runs(board, build):
    program = build("""
        #include <stdio.h>
        #include <math.h>
        #include "bench.h"
        int main(void) {
            volatile float x = 2.0f;
            for (volatile int i = 0; i < 8000000; i++) {}  /* the 24 bits of SysTick wrap */
            printf("%d %d\\n", (int)(1000 * sqrtf(x)), bench_ticks() > 0x1000000);
            return 0;
        }""")
    assert run_program(board, program) == "1414 1\n"


def test_a_fault_and_a_failure_are_told_apart(board, build):
    with pytest.raises(DeviceError, match="a processor fault"):
        run_program(board, build("int main(void) { return *(volatile int *)0xF0000000u; }"))
    with pytest.raises(DeviceError, match="status 7"):
        run_program(board, build("int main(void) { return 7; }"))


def test_a_program_without_end(board, build):
    with pytest.raises(DeviceError, match="did not end within 1 s"):
        run_program(board, build("int main(void) { for (;;) {} }"), deadline=1)


def test_what_the_compiler_refuses(build):
    with pytest.raises(DeviceError) as caught:
        build("int main(void) { return no_such_thing; }")
    assert caught.value.code == "compiler"
    assert "no_such_thing" in caught.value.where


def test_a_program_that_does_not_fit(board, build):
    with pytest.raises(DeviceError, match=f"does not fit {board.machine}") as caught:
        build("static volatile char large[64 << 20]; int main(void) { return large[1 << 20]; }")
    assert caught.value.code == "does-not-fit"


def test_a_board_that_is_not_known():
    with pytest.raises(UsageError, match="cortex-m33") as caught:
        find_board("cortex-m33")
    assert "cortex-m4" in caught.value.expected
