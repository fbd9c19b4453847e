"""PyTorch models however they come: a factory in Python, an exported program, TorchScript. Loaded without running code,
except where the user named code (`file.py:factory`).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError
from agent.contract.finding import INFO, Finding
from agent.contract.manifest import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from packager.shapes import Shape

_FACTORY = re.compile(r"^(?P<place>.+?):(?P<name>[A-Za-z_]\w*)$")
SEED = 0


def need_torch() -> Any:
    """The torch module. Raises UsageError that says how to install it."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise UsageError(
            f"PyTorch is needed to read this model: {error}", fix="pip install 'edgepack[torch]'", code="no-torch"
        ) from error


def split_factory(model: str) -> tuple[str, str] | None:
    """`path/file.py:factory` or `package.module:factory` as its two halves; None for anything else."""
    match = _FACTORY.match(model)
    if not match or (match["place"].endswith(".onnx")):
        return None
    place = match["place"]
    if place.endswith(".py") or re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", place):
        return place, match["name"]
    return None


def import_named(place: str, name: str) -> Any:
    """The object `name` of a Python file or module. Whatever it prints goes to stderr. Raises UsageError."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            module = _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(f"{place} does not import: {error!r}", where=_line_of(error, place)) from error
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UsageError(f"{place} has no {name!r}", expected=f"one of: {', '.join(known) or 'no function is there'}")
    return getattr(module, name)


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise UsageError("there is no such file", where=str(path), code="no-model")
    name = f"_edgepack_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError("not a Python file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look the module up by its name
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # the file may import its neighbours
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module


def call_factory(place: str, name: str) -> tuple[Any, tuple[Any, ...] | None, list[Finding]]:
    """The module in eval mode, its example inputs if it gave some, and what was noticed. Raises UsageError."""
    torch = need_torch()
    factory = import_named(place, name)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            made = factory() if not isinstance(factory, torch.nn.Module) else factory
        except Exception as error:
            raise UsageError(
                f"{name}() raised {error!r}",
                where=_line_of(error, place),
                expected="an nn.Module",
                code="factory-failed",
            ) from error
    examples = None
    if isinstance(made, tuple) and len(made) == 2:  # noqa: PLR2004 - (module, example_inputs)
        made, examples = made
    if not isinstance(made, torch.nn.Module):
        raise UsageError(
            f"{name}() returned {type(made).__name__}",
            where=place,
            expected="an nn.Module, or (module, example_inputs)",
            code="factory-result",
        )
    findings = []
    if made.training:
        made.eval()
        text = "the module was in training mode: switched to eval()"
        findings.append(Finding("train-mode", INFO, text, "return module.eval() from the factory"))
    return made, _as_tuple(made, examples), findings


def _as_tuple(module: Any, examples: Any) -> tuple[Any, ...] | None:
    torch = need_torch()
    if examples is None:
        return None
    if isinstance(examples, torch.Tensor):
        examples = (examples,)
    if isinstance(examples, Mapping):
        names = input_names(module, len(examples))
        if set(names) != set(examples):
            raise UsageError(f"example inputs are named {sorted(examples)}", expected=f"forward() takes {names}")
        examples = [examples[name] for name in names]
    if not all(isinstance(value, torch.Tensor) for value in examples):
        kinds = ", ".join(type(value).__name__ for value in examples)
        raise UsageError(f"example inputs are {kinds}", expected="tensors", code="factory-result")
    return tuple(examples)


def input_names(module: Any, count: int) -> list[str]:
    """The parameters of forward(): the names that the inputs keep through every conversion."""
    parameters = inspect.signature(module.forward).parameters.values()
    names = [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if len(names) < count:  # forward(*args)
        names += [f"input_{index}" for index in range(len(names), count)]
    return names[:count]


def output_names(count: int, given: Sequence[str]) -> list[str]:
    """`output`, or output_0, output_1, ...; or those given, which must be as many."""
    if given:
        if len(given) != count:
            raise UsageError(f"{len(given)} output names for {count} outputs", fix="give one name per output")
        return list(given)
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def make_examples(module: Any, shapes: Mapping[str, Shape]) -> tuple[Any, ...]:
    """Random inputs of the shapes given with --shape. Raises UsageError when an input has none."""
    torch = need_torch()
    parameters = inspect.signature(module.forward).parameters.values()
    needed = [one.name for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    missing = [name for name in needed if name not in shapes]
    if missing or not needed:
        raise UsageError(
            f"the shape of {', '.join(missing) or 'the inputs'} is not known",
            fix="let the factory return (module, example_inputs), or give --shape "
            + " --shape ".join(f"{name}=1x3x224x224" for name in missing or ["NAME"]),
            code="no-example",
        )
    generator = torch.Generator().manual_seed(SEED)
    return tuple(
        torch.randn([size if isinstance(size, int) else 1 for size in shapes[name]], generator=generator)
        for name in needed
    )


def flatten_outputs(result: Any) -> list[Any]:
    """The tensors of a module's result, in order. Raises ConvertError for what holds none."""
    torch = need_torch()
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, Mapping):
        result = list(result.values())
    if isinstance(result, (tuple, list)):
        return [tensor for item in result for tensor in flatten_outputs(item)]
    if result is None:
        return []
    raise ConvertError(f"the module returns {type(result).__name__}", expected="tensors", code="output-type")


def specs_of(names: Sequence[str], tensors: Sequence[Any]) -> tuple[TensorSpec, ...]:
    """Names, types and shapes of tensors."""
    return tuple(
        TensorSpec(
            name=name, dtype=str(tensor.dtype).removeprefix("torch."), shape=[int(size) for size in tensor.shape]
        )
        for name, tensor in zip(names, tensors, strict=True)
    )


def run_module(
    module: Any, batches: Sequence[Mapping[str, np.ndarray[Any, Any]]], inputs: Sequence[str], outputs: Sequence[str]
) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """The module's own outputs for each batch."""
    torch = need_torch()
    with torch.no_grad():
        for batch in batches:
            result = module(*[torch.from_numpy(batch[name].copy()) for name in inputs])
            tensors = [tensor.detach().cpu().numpy() for tensor in flatten_outputs(result)]
            yield dict(zip(outputs, tensors, strict=True))


def _line_of(error: BaseException, place: str) -> str:
    """The last line of the user's own file in the traceback."""
    trace, found = error.__traceback__, place
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.endswith(Path(place).name) or place.replace(".", "/") in name:
            found = f"{name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found
