"""A bundle's plain C on an emulated Cortex-M: golden check there, instructions for each inference, stack, RAM, flash."""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract import archive, parity
from agent.contract.errors import DeviceError
from agent.contract.facts import DeviceFacts
from agent.contract.finding import INFO, WARNING, Finding
from agent.contract.report import Emulation, ProbeReading, Report, Round, RuntimeUsed
from packager.micro.board import (
    NS_PER_INSTRUCTION,
    RUNTIME,
    Board,
    compile_program,
    find_board,
    need_tools,
    run_program,
    section_sizes,
)
from packager.tflite_run import real

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.contract.manifest import Manifest

PREFIX = "qemu:"
_FOLDER = "plain-c/"


def bench_on_board(address: str, bundle: str | Path, progress: Callable[[str], None]) -> Report:
    """The report, in instructions. `address` is "qemu:cortex-m4". Raises DeviceError or IntegrityError."""
    board = find_board(address.removeprefix(PREFIX))
    need_tools()
    started = time.time()
    with archive.BundleReader(bundle) as reader, tempfile.TemporaryDirectory(prefix="edgepack-mcu-") as name:
        reader.verify()
        manifest, folder = reader.manifest, Path(name)
        _check_runs(manifest)
        for file in manifest.files:
            if file.startswith(_FOLDER):
                (folder / file.removeprefix(_FOLDER)).write_bytes(reader.read(file))
        feeds = _golden(reader, manifest, "inputs")
        wanted = _golden(reader, manifest, "outputs")
        bundle_bytes = sum(entry.size for entry in manifest.files.values()) + len(manifest.to_bytes())
        digest = reader.digest
        progress(f"compiling for {board.machine}")
        (folder / "golden.h").write_text(_golden_header(next(iter(feeds.values()))), encoding="utf-8")
        program = folder / "program.elf"
        compile_program(board, [folder / "model.c", RUNTIME / "harness.c"], program, [folder])
        progress(f"running on an emulated {board.name}")
        ticks, outputs, stack = _parse(run_program(board, program), manifest)
        sizes = section_sizes(program)
    output = manifest.outputs[0]
    scale = manifest.facts["quantization"][output.name]
    rows = [{output.name: real(values, scale["scale"], scale["zero_point"])} for values in outputs]
    assert manifest.golden is not None  # noqa: S101 - _check_runs saw it
    return Report(
        job=f"qemu-{time.time_ns():x}",
        bundle=digest,
        name=manifest.name,
        target=manifest.target,
        recipe=str(manifest.recipe.get("name", "")),
        runtime=RuntimeUsed(name="plain C99", version=manifest.edgepack, provider="cpu", threads=1),
        parity=parity.compare(wanted, rows, manifest.golden.tolerance),
        rounds=[_round(board, ticks)],
        facts=_facts(board, address),
        model_bytes=manifest.files[manifest.model].size,
        bundle_bytes=bundle_bytes,
        source_bytes=manifest.source.size_bytes,
        started_unix=started,
        findings=[_label(board), *_memory(manifest, sizes, stack, feeds), *manifest.findings],
        emulation=Emulation(cpu=board.name, ns_per_instruction=float(NS_PER_INSTRUCTION)),
    )


def _check_runs(manifest: Manifest) -> None:
    if manifest.runtime.name != "tflite_micro":
        raise DeviceError(
            f"an emulated microcontroller does not run {manifest.runtime.name} bundles",
            expected="a bundle built for a microcontroller: edgepack build MODEL --target cortex-m4",
            code="no-runner",
        )
    if _FOLDER + "model.c" not in manifest.files or manifest.golden is None:
        why = manifest.facts.get("plain_c", {}).get("why_not", "") or "it has no golden vectors"
        raise DeviceError(
            f"the bundle cannot run on an emulated microcontroller: {why}",
            expected="a model of the operators that edgepack writes as plain C (conv, dense, pools, add, softmax ...)",
            fix="its check in TFLite Micro on the host stands in the manifest",
            code="no-plain-c",
        )


def _golden(reader: archive.BundleReader, manifest: Manifest, side: str) -> dict[str, Any]:
    import numpy as np

    entries = getattr(manifest.golden, side)
    return {entry.name: np.load(io.BytesIO(reader.read(entry.file)), allow_pickle=False) for entry in entries}


def _golden_header(samples: Any) -> str:
    numbers = ", ".join(str(int(value)) for value in samples.ravel())
    return (
        f"#define GOLDEN_SAMPLES {len(samples)}\nstatic const int8_t golden_inputs[{samples.size}] = {{{numbers}}};\n"
    )


def _parse(talk: str, manifest: Manifest) -> tuple[list[int], list[Any], int]:
    import numpy as np

    shape = [size if isinstance(size, int) else 1 for size in manifest.outputs[0].shape]
    ticks, outputs, stack = [], [], 0
    for line in talk.splitlines():
        word, _, rest = line.partition(" ")
        if word == "ticks":
            ticks.append(int(rest))
        elif word == "output":
            outputs.append(np.array(rest.split(), "int64").astype("int8").reshape(shape))
        elif word == "stack":
            stack = int(rest)
    return ticks, outputs, stack


def _round(board: Board, ticks: list[int]) -> Round:
    nothing = ProbeReading(unread={"all": "an emulated microcontroller has no probes"})
    return Round(
        load_ns=0,
        first_ns=board.instructions(ticks[0]) * NS_PER_INSTRUCTION,
        warmup_ns=[],
        samples_ns=[board.instructions(one) * NS_PER_INSTRUCTION for one in ticks],
        peak_memory_bytes=None,
        baseline_memory_bytes=None,
        before=nothing,
        after=nothing,
    )


def _label(board: Board) -> Finding:
    text = f"instructions on an emulated {board.name}: how much work is done, never milliseconds of a board"
    return Finding("emulated-instructions", INFO, text, "measure on the board before deciding")


def _memory(manifest: Manifest, sizes: dict[str, int], stack: int, feeds: dict[str, Any]) -> list[Finding]:
    arena = manifest.facts["plain_c"]["arena_bytes"]
    flash = sizes["text"] + sizes["data"] - sum(array.nbytes for array in feeds.values())
    text = (
        f"static RAM {arena:,} bytes (the model's buffer), stack {stack:,} bytes, flash {flash:,} bytes "
        "(model, kernels and the C library's output functions)"
    )
    found = [Finding("mcu-memory", INFO, text, "")]
    if arena + stack > manifest.facts["ram_bytes"]:
        told = f"{arena + stack:,} bytes of RAM are more than the profile's {manifest.facts['ram_bytes']:,}"
        found.append(Finding("does-not-fit", WARNING, told, "a smaller input, or a board with more RAM"))
    return found


def _facts(board: Board, address: str) -> DeviceFacts:
    why = "an emulated microcontroller without an operating system"
    return DeviceFacts(
        hostname=address,
        model=f"qemu {board.machine}",
        machine="armv8.1-m" if board.name == "cortex-m55" else "armv7e-m",
        kernel="",
        os="none",
        python="",
        python_path="",
        libc="newlib",
        numpy=None,
        runtimes=[],
        cpu_model=board.name,
        cpu_cores=1,
        cpu_features=[],
        memory_total=board.ram[1],
        memory_available=None,
        disk_free=None,
        root="",
        clock_unix=time.time(),
        unread=dict.fromkeys(("numpy", "memory_available", "disk_free"), why),
    )
