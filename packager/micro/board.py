"""Cortex-M boards under qemu-system-arm: compile C for one, run it to its end, count its instructions."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from agent.contract.errors import DeviceError, unknown_name

RUNTIME = Path(__file__).parent / "runtime"
COMPILER, SIZE, EMULATOR = "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"
_PACKAGES = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
ICOUNT_SHIFT = 5
NS_PER_INSTRUCTION = 1 << ICOUNT_SHIFT  # qemu's virtual time for one instruction


@dataclasses.dataclass(frozen=True)
class Board:
    """`clock_hz` is SysTick's; `code` and `ram` are (origin, length) in bytes."""

    name: str
    machine: str
    flags: tuple[str, ...]
    clock_hz: int
    code: tuple[int, int] = (0x0000_0000, 4 << 20)
    ram: tuple[int, int] = (0x2000_0000, 4 << 20)

    def instructions(self, ticks: int) -> int:
        """What a difference of `bench_ticks()` is worth."""
        return round(ticks * 1e9 / self.clock_hz / NS_PER_INSTRUCTION)


_M4 = ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
_M7 = ("-mcpu=cortex-m7", "-mfpu=fpv5-d16", "-mfloat-abi=hard")
_M55 = ("-mcpu=cortex-m55", "-mfloat-abi=hard")
BOARDS = {
    board.name: board
    for board in (
        Board("cortex-m3", "mps2-an385", ("-mcpu=cortex-m3", "-mfloat-abi=soft"), 25_000_000),
        Board("cortex-m4", "mps2-an386", _M4, 25_000_000),
        Board("cortex-m7", "mps2-an500", _M7, 25_000_000),
        Board("cortex-m55", "mps3-an547", _M55, 32_000_000, code=(0, 512 << 10), ram=(0x2100_0000, 4 << 20)),
    )
}


def find_board(name: str) -> Board:
    """The board of this name. Raises UsageError that lists them."""
    if name not in BOARDS:
        raise unknown_name("emulated microcontroller", name, BOARDS, fix="qemu:cortex-m4, for example")
    return BOARDS[name]


def need_tools() -> None:
    """Raises DeviceError with the command that installs what is missing."""
    missing = [name for name in (COMPILER, EMULATOR) if not shutil.which(name)]
    if missing:
        raise DeviceError(
            f"an emulated microcontroller needs {', '.join(missing)}",
            where="this host",
            fix=f"sudo apt-get install --no-install-recommends {_PACKAGES}",
            code="no-emulator",
        )


def compile_program(board: Board, sources: Sequence[Path], program: Path, includes: Sequence[Path] = ()) -> None:
    """Compiles and links to the ELF file `program`. Raises DeviceError, "does-not-fit" where the board is too small."""
    regions = {"CODE": board.code, "RAM": board.ram}
    argv = [COMPILER, *board.flags, "-mthumb", "-std=gnu99", "-O2", "-Wall", "-ffunction-sections", "-fdata-sections"]
    argv += [f"-I{folder}" for folder in (RUNTIME, *includes)]
    argv += ["-nostartfiles", "--specs=rdimon.specs", "-Wl,--gc-sections", "-T", str(RUNTIME / "memory.ld")]
    for name, values in regions.items():
        pairs = zip(("ORIGIN", "LENGTH"), values, strict=True)
        argv += [f"-Wl,--defsym={name}_{what}={value:#x}" for what, value in pairs]
    argv += [str(RUNTIME / "start.c"), *map(str, sources), "-lm", "-o", str(program)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        full = "overflowed" in done.stderr or "will not fit" in done.stderr
        raise DeviceError(
            f"the program does not fit {board.machine}" if full else f"{COMPILER} does not compile the program",
            where=done.stderr.strip()[-1500:],
            expected=f"{board.code[1]:,} bytes of code and {board.ram[1]:,} of RAM" if full else "",
            code="does-not-fit" if full else "compiler",
        )


def run_program(board: Board, program: Path, deadline: float = 300.0) -> str:
    """The program's standard output. Raises DeviceError when it faults, returns non-zero or does not end in time."""
    argv = [EMULATOR, "-M", board.machine, "-kernel", str(program), "-icount", f"shift={ICOUNT_SHIFT}", "-nodefaults"]
    argv += ["-semihosting-config", "enable=on,target=native"]
    argv += ["-display", "none", "-monitor", "none", "-serial", "none"]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=deadline, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"the program did not end within {deadline:.0f} s", where=board.machine, code="timeout"
        ) from error
    if done.returncode:
        told = "a processor fault" if done.returncode == 99 else f"status {done.returncode}"  # noqa: PLR2004 - start.c
        raise DeviceError(
            f"the program ended with {told}", where=(done.stdout + done.stderr)[-800:], code="program-failed"
        )
    return done.stdout


def section_sizes(program: Path) -> dict[str, int]:
    """text, data and bss in bytes."""
    done = subprocess.run([SIZE, str(program)], capture_output=True, text=True, check=True)
    numbers = done.stdout.splitlines()[1].split()[:3]
    return dict(zip(("text", "data", "bss"), map(int, numbers), strict=True))
