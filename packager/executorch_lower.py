"""PyTorch to ExecuTorch: export, quantise with torchao's pt2e, give XNNPACK what it takes, write the program."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError
from agent.contract.finding import INFO, Finding
from packager import torch_models
from packager.executorch_quantizer import quantizer, unrolled
from packager.torch_compare import outputs_of, worst_cosine
from packager.torch_trace import user_place

if TYPE_CHECKING:
    from packager.recipe import Recipe
    from packager.torch_program import Program


# The cosine with the original under which another way to INT8 is tried (the target's tolerance), on that many samples.
_NEAR, _COMPARED = 0.98, 4


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


def quantise(exported: Any, program: Program, feeds: Sequence[Sequence[Any]], recipe: Recipe) -> Any:
    """The exported program with INT8 weights, and activations that are calibrated on `feeds` or, for int8-dynamic, measured
    at run time. Raises ConvertError.
    """
    torch = torch_models.need_torch()
    with quiet():
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        dynamic = recipe.precision == "int8-dynamic"
        try:
            exported = unrolled(exported) if dynamic else exported
            prepared = prepare_pt2e(exported.module(), quantizer(recipe, dynamic=dynamic))
            with torch.no_grad():
                for feed in feeds or [program.examples]:
                    prepared(*feed)
            converted = convert_pt2e(prepared)
        except (RuntimeError, AssertionError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConvertError(f"torchao's quantiser failed: {str(error)[:600]}", code="quantiser-failed") from error
        if not any("quantized_decomposed" in str(node.target) for node in converted.graph.nodes):
            raise ConvertError(
                "INT8 was asked for, but no operator was quantised",
                fix="use --recipe fp32" + (" or int8 with --calibration" if dynamic else ""),
                code="nothing-to-quantise",
            )
        return torch.export.export(converted, program.examples)


def quantise_static(
    exported: Any, program: Program, feeds: Sequence[Sequence[Any]], recipe: Recipe
) -> tuple[Any, list[Finding]]:
    """Static INT8 of every operator that XNNPACK has in integers; where that is far from the original, of those that multiply
    if that is much nearer. A recipe's own `scope` is kept to. Raises ConvertError.
    """
    whole = quantise(exported, program, feeds, recipe)
    if recipe.scope:
        return whole, []
    few = feeds[:_COMPARED]
    original = exported.module(check_guards=False)
    expected = [outputs_of(original, feed) for feed in few]
    far = worst_cosine(expected, [outputs_of(whole.module(check_guards=False), feed) for feed in few])
    if far >= _NEAR:
        return whole, []
    part = quantise(exported, program, feeds, dataclasses.replace(recipe, scope="compute"))
    near = worst_cosine(expected, [outputs_of(part.module(check_guards=False), feed) for feed in few])
    if 1 - near >= (1 - far) / 2:
        return whole, []
    text = (
        f"only convolutions and linear layers are INT8: with sums and products in INT8, too, the cosine with the original is"
        f" {far:.4f}, so {near:.4f}"
    )
    return part, [Finding("compute-only", INFO, text, 'scope = "all" in a recipe file insists')]


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
