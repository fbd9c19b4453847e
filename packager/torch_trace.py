"""A live module as TorchScript: traced, or scripted where tracing loses control flow; which of the two is decided by
comparing both with the module itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import linecache
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from agent.contract.finding import INFO, WARNING, Finding
from packager import torch_models
from packager.torch_compare import flatten, outputs_of, worst_cosine

if TYPE_CHECKING:
    from packager.torch_program import Program

# Rounding apart, a trace computes what the module computes.
SAME = 0.99999
_CONTROL_FLOW = "might cause the trace"
_PLACE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


@dataclasses.dataclass(frozen=True)
class Scripted:
    """`how` is trace or script."""

    module: Any
    how: str
    findings: tuple[Finding, ...] = ()


@contextlib.contextmanager
def legacy_quiet() -> Iterator[None]:
    """TorchScript and torch.ao are deprecated, and say so at every call; the format they write lives on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", UserWarning)
        with contextlib.redirect_stdout(sys.stderr):
            yield


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Without the fused kernels of nn.MultiheadAttention and nn.TransformerEncoder, which read weights that INT8 layers do
    not have.
    """
    mha = torch_models.need_torch().backends.mha
    before = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(before)


def to_script(program: Program, module: Any, feeds: Sequence[Sequence[Any]]) -> Scripted:
    """`module` as a ScriptModule that agrees with it on `feeds`. Raises ConvertError with the line of the user's code.

    `module` is the program's own, or what a quantiser made of it.
    """
    if program.kind == "torchscript":
        return Scripted(module, "script")
    expected = [outputs_of(module, feed) for feed in feeds]
    traced, doubts = _trace(module, program.examples)
    if isinstance(traced, ConvertError):
        return _script(module, feeds, expected, traced)
    worst = _compare(traced, feeds, expected)
    if worst >= SAME and not doubts:
        return Scripted(traced, "trace")
    reason = ConvertError(
        f"tracing loses the module's control flow (cosine {worst:.4f} with the module on the inputs compared)",
        where=doubts[0] if doubts else "",
        fix="write the branch with tensor operations (torch.where), or keep the module scriptable (torch.jit.script)",
        code="control-flow",
    )
    try:
        return _script(module, feeds, expected, reason)
    except ConvertError:
        if worst < SAME:
            raise
    text = f"values of the example inputs are fixed in the traced model ({doubts[0]}): equal on {len(feeds)} inputs compared"
    advice = "other input shapes or values may take another branch: compare on your own data"
    return Scripted(traced, "trace", (Finding("traced-values", WARNING, text, advice),))


def _trace(module: Any, examples: tuple[Any, ...]) -> tuple[Any, list[str]]:
    """The trace, or the ConvertError that says why there is none; and the places where Python read tensor values."""
    torch = torch_models.need_torch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
                traced = torch.jit.trace(_flat(module), examples, check_trace=False, strict=False)
        except Exception as error:  # noqa: BLE001 - tracing runs the user's code: anything may come out of it
            return _refused("cannot be traced", error), []
    doubts = [
        f"{one.filename}:{one.lineno}: {linecache.getline(one.filename, one.lineno).strip()}"
        for one in caught
        if one.category.__name__ == "TracerWarning" and _CONTROL_FLOW in str(one.message)
    ]
    # Libraries read shapes in Python, harmlessly; what counts is the user's own line.
    return traced, [place for place in doubts if "/site-packages/" not in place]


def _script(
    module: Any, feeds: Sequence[Sequence[Any]], expected: Sequence[Sequence[Any]], reason: ConvertError
) -> Scripted:
    torch = torch_models.need_torch()
    try:
        with legacy_quiet():
            scripted = torch.jit.script(module).eval()
    except Exception as error:
        # The TorchScript compiler raises classes of its own, without a common base.
        reason.what += f"; and scripting fails: {_first_lines(error)}"
        reason.where = reason.where or _place(str(error))
        raise reason from error
    worst = _compare(scripted, feeds, expected)
    if worst < SAME:
        reason.what += f"; and the scripted module differs (cosine {worst:.4f})"
        raise reason
    text = f"scripted instead of traced: {reason.what}" + (f" ({reason.where})" if reason.where else "")
    return Scripted(scripted, "script", (Finding("scripted", INFO, text, ""),))


def _compare(module: Any, feeds: Sequence[Sequence[Any]], expected: Sequence[Sequence[Any]]) -> float:
    try:
        return worst_cosine(expected, [outputs_of(module, feed) for feed in feeds])
    except RuntimeError:
        return -1.0  # a trace with shapes or values fixed in it may not even run on other inputs


def user_place(error: BaseException) -> str:
    """The last line of code in the traceback that is neither PyTorch's nor ours, with its file; empty where all is."""
    ours = ("/torch/", "/torchao/", "/executorch/", "/packager/", "/targets/", "/importlib/", "/contextlib.py")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not any(part in frame.filename for part in ours) and not frame.filename.startswith("<"):
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    match = _PLACE.findall(str(error))
    return f"{match[-1][0]}:{match[-1][1]}" if match else ""


def _refused(what: str, error: Exception) -> ConvertError:
    text = _first_lines(error)
    return ConvertError(
        f"the module {what}: {text}",
        where=user_place(error),
        fix="take only tensors (or tuples of tensors) in forward(), and branch with torch.where",
        code="not-traceable",
    )


def _first_lines(error: Exception, limit: int = 400) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith('File "')]  # `where` names the place
    return " ".join(said[:2])[:limit] or repr(error)[:limit]


def _place(text: str) -> str:
    match = _PLACE.search(text)
    return f"{match['file']}:{match['line']}" if match else ""


def _flat(module: Any) -> Any:
    """The module with a tensor or a tuple of tensors as its result, whatever the original's classes are."""
    base: Any = torch_models.need_torch().nn.Module

    class Flat(base):  # type: ignore[misc] # the base is known at run time only
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *inputs: Any) -> Any:
            found = flatten(self.inner(*inputs))
            return found[0] if len(found) == 1 else tuple(found)

    flat = Flat()
    # Not eval(): the inner module is in that mode already, and an exported program refuses the call.
    flat.training = False
    return flat
