"""PyTorch to ExecuTorch: export, quantise with torchao's pt2e, give XNNPACK what it takes, write the program."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError
from packager import torch_models
from packager.executorch_quantizer import quantizer, unrolled
from packager.torch_trace import user_place

if TYPE_CHECKING:
    from packager.recipe import Recipe
    from packager.torch_program import Program


@dataclasses.dataclass(frozen=True)
class Delegation:
    """Operators that XNNPACK computes, and those that stay with the portable kernels, by name."""

    delegated: int
    left: dict[str, int]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """torch.export, torchao and executorch talk about other hardware; stdout is kept for data."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def need_executorch() -> None:
    """Raises UsageError that says how to install it."""
    try:
        with quiet():
            import executorch.exir  # noqa: F401 - whether it imports is the question
            import torchao  # noqa: F401 - as above
    except ImportError as error:
        raise UsageError(
            f"ExecuTorch is needed to build this: {error}",
            fix="pip install 'edgepack[executorch]'",
            code="no-executorch",
        ) from error


def export(program: Program) -> Any:
    """The module as an exported program. Raises ConvertError with the line of the user's code."""
    torch = torch_models.need_torch()
    if program.kind == "pt2":
        return torch.export.export(program.module, program.examples)
    try:
        # Where it fails, torch.export prints the graph it had so far, twice: the error says what is needed of it.
        said = io.StringIO()
        with quiet(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), torch.no_grad():
            return torch.export.export(program.module, program.examples)
    except Exception as error:
        # Exporting runs the user's code: anything may come out of it.
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ConvertError(
            f"torch.export refuses the module: {' '.join(lines[:2])[:500]}",
            where=user_place(error),
            fix="branch with torch.where or torch.cond in the place of Python's if, and take tensors in forward()",
            code="not-exportable",
        ) from error


def quantise_dynamic(exported: Any, program: Program, recipe: Recipe) -> Any:
    """The exported program with INT8 weights in linear layers, whose inputs are measured at run time. Raises ConvertError."""
    torch = torch_models.need_torch()
    with quiet(), quantising():
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        prepared = prepare_pt2e(unrolled(exported).module(), quantizer(recipe, dynamic=True))
        with torch.no_grad():
            prepared(*program.examples)
        converted = convert_pt2e(prepared)
        if not any("quantized_decomposed" in str(node.target) for node in converted.graph.nodes):
            raise ConvertError(
                "INT8 was asked for, but no operator was quantised",
                fix="use --recipe fp32 or int8 with --calibration",
                code="nothing-to-quantise",
            )
        return torch.export.export(converted, program.examples)


@contextlib.contextmanager
def quantising() -> Iterator[None]:
    """What torchao raises becomes a ConvertError."""
    try:
        yield
    except (RuntimeError, AssertionError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConvertError(f"torchao's quantiser failed: {str(error)[:600]}", code="quantiser-failed") from error


def write(exported: Any, path: Path) -> Delegation:
    """Writes the program for XNNPACK to `path`. Raises ConvertError."""
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        try:
            # One partitioner takes float, static and dynamic INT8. With XnnpackDynamicallyQuantizedPartitioner beside it, as
            # ExecuTorch's examples have it, poolings fall to the portable kernels: 0.30x as fast as float, not 1.04x.
            edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
            told = _delegation(edge.exported_program().graph_module)
            path.write_bytes(edge.to_executorch().buffer)
        except Exception as error:
            # ExecuTorch raises classes of each of its passes, without a common base.
            raise ConvertError(
                f"ExecuTorch does not lower the program: {str(error)[:600]}", code="executorch-failed"
            ) from error
    return told


def _delegation(graph: Any) -> Delegation:
    from executorch.devtools.backend_debug import get_delegation_info

    info = get_delegation_info(graph)
    left = {
        name: row.non_delegated
        for name, row in info.delegation_by_operator.items()
        if row.non_delegated and "getitem" not in name
    }
    return Delegation(delegated=info.num_delegated_nodes, left=left)
