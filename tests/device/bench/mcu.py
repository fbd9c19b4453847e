"""Microcontrollers: Cortex-M boards under qemu-system-arm, with standard output and exit status by semihosting.

Their clock counts instructions, so what a program measures is how much work it does, never how long a board takes.
"""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

RUNTIME = Path(__file__).parents[3] / "packager" / "micro" / "runtime"
COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
ICOUNT_SHIFT = 5  # 32 ns for each instruction: nearly one tick of the boards' clocks


@dataclasses.dataclass(frozen=True)
class Mcu:
    """A board. `clock_hz` is SysTick's; code and RAM are (origin, length) in bytes."""

    name: str
    board: str
    flags: tuple[str, ...]
    clock_hz: int
    code: tuple[int, int]
    ram: tuple[int, int]

    def instructions(self, ticks):
        """What a difference of `bench_ticks()` is worth."""
        return ticks * 1e9 / self.clock_hz / (1 << ICOUNT_SHIFT)


_MPS2_MEMORY = {"code": (0x0000_0000, 4 << 20), "ram": (0x2000_0000, 4 << 20)}
MCUS = {
    mcu.name: mcu
    for mcu in (
        Mcu("cortex-m3", "mps2-an385", ("-mcpu=cortex-m3", "-mfloat-abi=soft"), 25_000_000, **_MPS2_MEMORY),
        Mcu(
            "cortex-m4",
            "mps2-an386",
            ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
            25_000_000,
            **_MPS2_MEMORY,
        ),
        Mcu(
            "cortex-m7",
            "mps2-an500",
            ("-mcpu=cortex-m7", "-mfpu=fpv5-d16", "-mfloat-abi=hard"),
            25_000_000,
            **_MPS2_MEMORY,
        ),
        Mcu(
            "cortex-m55",
            "mps3-an547",
            ("-mcpu=cortex-m55", "-mfloat-abi=hard"),
            32_000_000,
            code=(0x0000_0000, 512 << 10),
            ram=(0x2100_0000, 4 << 20),
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class Run:
    """What a program left: `status` is main's return value, 99 after a processor fault; `talk` is the emulator's own."""

    status: int
    output: str
    talk: str = ""


def why_not():
    """Why nothing can be compiled or run here, or ""."""
    missing = [name for name in (COMPILER, EMULATOR) if not shutil.which(name)]
    if missing:
        return (
            f"{', '.join(missing)} missing: apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
        )
    return ""


def compile_c(mcu, sources, program, options=("-O2",)):
    """Compiles and links C sources for `mcu` to the ELF file `program`. Raises CompileError with what the compiler said."""
    memory = {"CODE": mcu.code, "RAM": mcu.ram}
    symbols = [
        f"-Wl,--defsym={name}_{what}={value:#x}"
        for name, region in memory.items()
        for what, value in zip(("ORIGIN", "LENGTH"), region, strict=True)
    ]
    argv = [
        COMPILER,
        *mcu.flags,
        "-mthumb",
        *options,
        "-Wall",
        f"-I{RUNTIME}",
        "-ffunction-sections",
        "-fdata-sections",
    ]
    argv += ["-nostartfiles", "--specs=rdimon.specs", "-Wl,--gc-sections", "-T", str(RUNTIME / "memory.ld"), *symbols]
    argv += [str(RUNTIME / "start.c"), *map(str, sources), "-lm", "-o", str(program)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(done.stderr)
    return program


def run(mcu, program, deadline=60.0):
    """Runs a program to its end. Raises subprocess.TimeoutExpired when it does not come to one."""
    argv = [EMULATOR, "-M", mcu.board, "-kernel", str(program), "-icount", f"shift={ICOUNT_SHIFT}", "-nodefaults"]
    argv += [
        "-semihosting-config",
        "enable=on,target=native",
        "-display",
        "none",
        "-monitor",
        "none",
        "-serial",
        "none",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=deadline, stdin=subprocess.DEVNULL, check=False)
    return Run(done.returncode, done.stdout, done.stderr)


class CompileError(Exception):
    """The compiler's own words."""
