"""PyTorch models however they come: a factory in Python, an exported program, TorchScript. Loaded without running code,
except where the user named code (`file.py:factory`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError, UsageError, unknown_name
from agent.contract.finding import INFO, Finding
from agent.contract.manifest import TensorSpec
from packager.shapes import Shape, show
from packager.torch_hints import hint

if TYPE_CHECKING:
    import numpy as np

_FACTORY = re.compile(r"^(?P<place>.+?):(?P<name>[A-Za-z_]\w*)$")
SEED = 0
# A module prepared by packager.compress.qat carries the engine it was trained for under this name.
QAT_ENGINE = "edgepack_qat_engine"


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


@contextlib.contextmanager
def user_code(place: str) -> Iterator[None]:
    """The user's own code runs inside: it may import its neighbours, and what it prints goes to stderr."""
    folder = str(Path(place).resolve().parent) if place.endswith(".py") else str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(ValueError):  # the user's code may have cleaned up already
            sys.path.remove(folder)


def import_named(place: str, name: str) -> Any:
    """The object `name` of a Python file or module; modules are also looked for in the current folder. Raises UsageError."""
    with user_code(place):
        try:
            module = _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        except UsageError:
            raise
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"{place} does not import: {error!r}", where=_line_of(error, place), code="no-import"
            ) from error
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown_name(f"function in {place}", name, known)
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
    spec.loader.exec_module(module)
    return module


@dataclasses.dataclass(frozen=True)
class Made:
    """What a factory gave: the module in eval mode, its example inputs if there were some, and what was noticed."""

    entry: str
    module: Any
    examples: tuple[Any, ...] | None
    findings: tuple[Finding, ...]


def call_factory(entry: str) -> Made:
    """Calls `file.py:factory` or `package.module:factory`, random numbers seeded, so that untrained weights and random
    examples are the same every time. Raises UsageError.
    """
    place, name = split_factory(entry) or ("", "")
    if not name:
        raise UsageError(f"not a factory: {entry!r}", expected="file.py:factory or package.module:factory")
    torch = need_torch()
    factory = import_named(place, name)
    with user_code(place), torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        try:
            made = factory() if not isinstance(factory, torch.nn.Module) else factory
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"{name}() raised {error!r}",
                where=_line_of(error, place),
                expected="an nn.Module",
                fix=hint(error),
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
    return Made(entry, made, _as_tuple(made, examples, place), tuple(findings))


_LAST: list[Made] = []


def remember(made: Made) -> Made:
    """Keeps the factory's last module for the steps of this build: a second call could give other weights."""
    _LAST[:] = [made]
    return made


def recall(entry: str) -> Made:
    """The module that was remembered for this factory, else made anew."""
    for made in _LAST:
        if made.entry == entry:
            return made
    return remember(call_factory(entry))


def _as_tuple(module: Any, examples: Any, place: str) -> tuple[Any, ...] | None:
    torch = need_torch()
    if examples is None:
        return None
    if isinstance(examples, torch.Tensor):
        examples = (examples,)
    if isinstance(examples, Mapping):
        names = input_names(module, len(examples))
        if set(names) != set(examples):
            raise UsageError(
                f"the example inputs are named {', '.join(map(str, examples))}",
                where=place,
                expected=f"forward() takes {', '.join(names)}",
                code="factory-result",
            )
        examples = [examples[name] for name in names]
    if not isinstance(examples, (tuple, list)) or not examples:
        raise _no_examples(type(examples).__name__, place)
    if not all(isinstance(value, torch.Tensor) for value in examples):
        raise _no_examples(", ".join(type(value).__name__ for value in examples), place)
    tensors = tuple(value.detach().cpu().contiguous() for value in examples)
    for value in tensors:
        if value.dtype is torch.bfloat16 or value.is_quantized or value.is_complex():
            raise _no_examples(f"of the type {value.dtype}", place)
        if not value.numel():
            raise _no_examples(f"of the shape {show(value.shape)}: nothing fits into it", place)
    return tensors


def _no_examples(found: str, place: str) -> UsageError:
    return UsageError(
        f"the factory's example inputs are {found}",
        where=place,
        expected="a tensor, a tuple of tensors, or a dict of tensors by the names of forward()'s parameters",
        code="factory-result",
    )


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


def examples_for(made: Made, shapes: Mapping[str, Shape]) -> tuple[Any, ...]:
    """Inputs to trace the module with: the factory's own, in the shapes given with --shape where there are such.

    Raises UsageError when neither says what an input looks like.
    """
    if made.examples is None:
        return _random_examples(made.module, shapes)
    names = input_names(made.module, len(made.examples))
    for name in shapes:
        if name not in names:
            raise unknown_name("input", name, names, fix="--shape takes the names of forward()'s parameters")
    pairs = zip(names, made.examples, strict=True)
    return tuple(_in_shape(tensor, shapes[name], name) if name in shapes else tensor for name, tensor in pairs)


def _in_shape(tensor: Any, shape: Shape, name: str) -> Any:
    if len(shape) != tensor.dim():
        raise UsageError(
            f"--shape {name}={show(shape)} does not fit the model",
            expected=f"{name} has the shape {show(tensor.shape)}",
            code="bad-shape",
        )
    sizes = [now if isinstance(have, str) else have for have, now in zip(shape, tensor.shape, strict=True)]
    if sizes == list(tensor.shape):
        return tensor
    # The example's own values, over and over: token numbers stay token numbers.
    count = math.prod(sizes)
    values = tensor.reshape(-1)
    return values.repeat(-(-count // len(values)))[:count].reshape(sizes)


def _random_examples(module: Any, shapes: Mapping[str, Shape]) -> tuple[Any, ...]:
    torch = need_torch()
    parameters = inspect.signature(module.forward).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = [one.name for one in parameters if one.kind in kinds]
    needed = [one.name for one in parameters if one.kind in kinds and one.default is one.empty]
    for name in shapes:
        if name not in known:
            raise unknown_name("input", name, known, fix="--shape takes the names of forward()'s parameters")
    missing = [name for name in needed if name not in shapes]
    if missing or not needed:
        raise UsageError(
            f"the shape of {', '.join(missing) or 'the inputs'} is not known",
            fix="let the factory return (module, example_inputs), or give --shape "
            + " --shape ".join(f"{name}=1x3x224x224" for name in missing or ["NAME"]),
            code="no-example",
        )
    last = max(known.index(name) for name in shapes)
    if known[: last + 1] != [name for name in known if name in shapes]:
        raise UsageError(
            "--shape leaves out an input before the last one given",
            expected=f"forward() takes {', '.join(known)}, in this order",
            code="no-example",
        )
    generator = torch.Generator().manual_seed(SEED)
    return tuple(
        torch.randn([size if isinstance(size, int) else 1 for size in shapes[name]], generator=generator)
        for name in known[: last + 1]
    )


def is_quantized(module: Any) -> bool:
    """Whether the module's layers or weights are integers already (torch.ao's quantised layers, torchao's tensors), or will
    be, with ranges that training has learned.
    """
    if hasattr(module, QAT_ENGINE):
        return True
    layers = any(".quantized" in type(one).__module__ for one in module.modules())
    return layers or any(type(value).__module__.startswith("torchao") for value in module.parameters())


def run_once(module: Any, tensors: Sequence[Any]) -> list[Any]:
    """The tensors that the module returns, in order. Raises ConvertError for what is none, or when it does not run."""
    torch = need_torch()
    try:
        with torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
            result = module(*tensors)
    except Exception as error:
        shapes = ", ".join(f"{show(tensor.shape)} {tensor.dtype}" for tensor in tensors)
        raise ConvertError(
            f"the module does not run: {str(error)[:600] or repr(error)}", where=f"inputs {shapes}", code="run-failed"
        ) from error
    found = _flatten(result)
    if not found:
        raise ConvertError("the module returns no tensor", expected="one tensor at least", code="output-type")
    return found


def _flatten(result: Any) -> list[Any]:
    torch = need_torch()
    if isinstance(result, torch.Tensor):
        return [result.detach().cpu()]
    if isinstance(result, Mapping):
        result = list(result.values())
    if isinstance(result, (tuple, list)):
        return [tensor for item in result for tensor in _flatten(item)]
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
    import numpy as np

    torch = need_torch()
    for batch in batches:
        found = run_once(module, [torch.from_numpy(np.array(batch[name])) for name in inputs])
        if len(found) != len(outputs):
            raise ConvertError(
                f"the module returned {len(found)} tensors", expected=f"{len(outputs)}, as before", code="output-type"
            )
        yield {name: tensor.numpy() for name, tensor in zip(outputs, found, strict=True)}


def _line_of(error: BaseException, place: str) -> str:
    """The last line of the user's own file in the traceback."""
    trace, found = error.__traceback__, place
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.endswith(Path(place).name) or place.replace(".", "/") in name:
            found = f"{name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found
