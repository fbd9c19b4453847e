"""Static INT8 for ExecuTorch: torchao's pt2e on a float program whose ranges are measured once, and what that makes run in
torch, rounded as the integers are, before it is lowered.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import ConvertError
from agent.contract.finding import INFO, Finding
from packager import executorch_lower, torch_models
from packager.compress.equalize_torch import correct_biases, equalize, weight_shifts
from packager.compress.quantize.executorch_ranges import Histogram, fill, known_range, measure, watched
from packager.compress.quantize.torch_joins import mixed_joins, tell_joins
from packager.compress.smooth_torch import smooth
from packager.executorch_lower import quantising, quiet
from packager.executorch_quantizer import quantizer, unchanged, within
from packager.torch_compare import outputs_of, worst_cosine

if TYPE_CHECKING:
    import numpy as np

    from packager.artifact import Artifact
    from packager.executorch_lower import Delegation
    from packager.protocols import Arrays
    from packager.recipe import Recipe
    from packager.torch_program import Program

# The cosine with the original under which another way to INT8 is tried (the target's tolerance), on that many samples.
_NEAR, _COMPARED = 0.98, 4


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """For the many small operators of observers and rounding: their threads cost more than they bring, and where the machine
    is shared they wait for one another (2.7 s a sample in the place of 0.15).
    """
    torch = torch_models.need_torch()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclasses.dataclass
class _Cured:
    """The float graph, batch norms folded, equalised or not; what its operators give; what rounding adds to its layers."""

    graph: Any
    ranges: dict[str, Histogram] = dataclasses.field(default_factory=dict)
    shifts: dict[bool, dict[str, Any]] = dataclasses.field(default_factory=dict)  # by per_channel


class Floats:
    """A float program and its calibration samples, with all that recipes share: made once, when a recipe asks for it."""

    def __init__(self, exported: Any, program: Program, feeds: Sequence[Sequence[Any]]) -> None:
        self.exported, self.program, self.feeds = exported, program, feeds
        self.written: dict[str, tuple[Path, Delegation]] = {}  # by the draft's digest
        self._cured: dict[tuple[bool, bool], _Cured] = {}
        self._expected: list[Any] = []
        self.mixed: dict[str, tuple[float, float]] = {}  # joins that stay in float, once a graph has been made

    def prepare(self, recipe: Recipe) -> Any:
        """The graph with an observer, told its range, wherever the recipe quantises. Raises ConvertError."""
        from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

        with quantising(), quiet(), one_thread():
            cured = self._by_cures(recipe)
            graph = copy.deepcopy(cured.graph)
            if recipe.bias_correction:
                correct_biases(graph, self._shifts(cured, recipe), lambda node: within(node, recipe.exclude))
            # What torchao gives a scale at least: below, XNNPACK's fixed-point multipliers end.
            observer = known_range().with_args(recipe=recipe, eps=2**-12)
            prepared = prepare_pt2e(graph, quantizer(recipe, activations=observer, floating=self.mixed))
            wanted = watched(prepared)
            if not wanted:
                raise ConvertError(
                    "INT8 was asked for, but no operator was quantised",
                    fix="use --recipe fp32",
                    code="nothing-to-quantise",
                )
            if not wanted.keys() <= cured.ranges.keys():
                cured.ranges |= measure(prepared, self.feeds)
            fill(prepared, cured.ranges, self.feeds[0])
        return prepared

    def few(self) -> tuple[Sequence[Sequence[Any]], list[Any]]:
        """Some samples and the original's outputs on them."""
        if not self._expected:
            original = self.exported.module(check_guards=False)
            self._expected = [outputs_of(original, feed) for feed in self.feeds[:_COMPARED]]
        return self.feeds[:_COMPARED], self._expected

    def _by_cures(self, recipe: Recipe) -> _Cured:
        key = (recipe.equalize, recipe.smooth)
        if key not in self._cured:
            graph = unchanged(self.exported.module())
            if not self._cured:
                self.mixed = mixed_joins(graph, self.feeds)
            if recipe.equalize:
                equalize(graph, self.feeds)
            if recipe.smooth:
                smooth(graph, self.feeds)
            self._cured[key] = _Cured(graph)
        return self._cured[key]

    def _shifts(self, cured: _Cured, recipe: Recipe) -> dict[str, Any]:
        if recipe.per_channel not in cured.shifts:
            cured.shifts[recipe.per_channel] = weight_shifts(cured.graph, self.feeds, recipe)
        return cured.shifts[recipe.per_channel]


_LAST: list[tuple[Any, Floats]] = []


def kept(key: Any, make: Callable[[], Floats]) -> Floats:
    """The float program of this key, if it is the last one that was made; else made, in the last one's place."""
    if not _LAST or _LAST[0][0] != key:
        _LAST[:] = [(key, make())]
    return _LAST[0][1]


def rounded(prepared: Any) -> Any:
    """The prepared graph, in place, with what every observer saw rounded to its integers and back: the same integers as in
    the program that is lowered, computed in float.
    """
    torch = torch_models.need_torch()
    modules = dict(prepared.named_modules(remove_duplicate=False))

    base: Any = torch.nn.Module

    class Rounding(base):  # type: ignore[misc] # the base is known at run time only
        def __init__(self, observer: Any, *, constant: bool) -> None:
            super().__init__()
            self.scale, self.zero = observer.calculate_qparams()
            self.ends = observer.quant_min, observer.quant_max
            self.axis = getattr(observer, "ch_axis", None)
            self.constant = constant
            self.result: Any = None

        def forward(self, values: Any) -> Any:
            if self.result is not None:
                return self.result
            found = self.round(values)
            if self.constant:
                self.result = found
            return found

        def round(self, values: Any) -> Any:
            if self.axis is None:
                scale, zero = float(self.scale), int(self.zero)
                return torch.fake_quantize_per_tensor_affine(values, scale, zero, *self.ends)
            return torch.fake_quantize_per_channel_affine(values, self.scale, self.zero.int(), self.axis, *self.ends)

    with torch.no_grad(), quantising():
        for node in prepared.graph.nodes:
            one = modules.get(str(node.target)) if node.op == "call_module" else None
            if hasattr(one, "calculate_qparams"):
                prepared.add_submodule(
                    node.target,
                    Rounding(one, constant=not isinstance(one, known_range()) and node.args[0].op == "get_attr"),
                )
    return prepared


def digest(drafted: Any) -> str:
    """Of the integers' scales and the float weights: the same for recipes that make the same program."""
    found = hashlib.sha256(str(drafted.graph).encode())
    for name, tensor in sorted(drafted.state_dict().items()):
        found.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    for name, one in sorted(drafted.named_modules()):
        if hasattr(one, "zero"):
            found.update(name.encode() + one.scale.numpy().tobytes() + one.zero.numpy().tobytes())
    return found.hexdigest()


def draft(floats: Floats, recipe: Recipe) -> tuple[Any, Recipe, list[Finding]]:
    """INT8 as a module in torch, of every operator that XNNPACK has in integers; where that is far from the original, of
    those that multiply if that is much nearer. A recipe's own `scope` is kept to. With the recipe that made it, and what to
    tell. Raises ConvertError.
    """
    whole = rounded(floats.prepare(recipe))
    told = tell_joins(floats.mixed) if recipe.scope != "compute" else []
    if recipe.scope:
        return whole, recipe, told
    few, expected = floats.few()
    far = _cosine(whole, few, expected)
    if far >= _NEAR:
        return whole, recipe, told
    narrow = dataclasses.replace(recipe, scope="compute")
    part = rounded(floats.prepare(narrow))
    near = _cosine(part, few, expected)
    if 1 - near >= (1 - far) / 2:
        return whole, recipe, told
    text = (
        f"only convolutions and linear layers are INT8: with sums and products in INT8, too, the cosine with the original is"
        f" {far:.4f}, so {near:.4f}"
    )
    return part, narrow, [Finding("compute-only", INFO, text, 'scope = "all" in a recipe file insists')]


def _cosine(module: Any, few: Sequence[Sequence[Any]], expected: Sequence[Any]) -> float:
    with one_thread():
        return worst_cosine(expected, [outputs_of(module, feed) for feed in few])


def quantise(floats: Floats, recipe: Recipe) -> Any:
    """The exported program with the integers of a draft by the same recipe. Raises ConvertError."""
    torch = torch_models.need_torch()
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    prepared = floats.prepare(recipe)
    with quantising(), quiet(), one_thread():
        return torch.export.export(convert_pt2e(prepared), floats.program.examples)


def write(floats: Floats, module: Any, recipe: Recipe, path: Path) -> Delegation:
    """Writes the program of a draft (`module`) for XNNPACK to `path`, or what was written of the same integers before: that
    takes ExecuTorch a minute for MobileNetV2. Raises ConvertError.
    """
    key = digest(module)
    before = floats.written.get(key)
    if before is not None and before[0].exists():
        shutil.copyfile(before[0], path)
    else:
        floats.written[key] = path, executorch_lower.write(quantise(floats, recipe), path)
    return floats.written[key][1]


def run(module: Any, artifact: Artifact, feeds: Iterable[Arrays]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """The outputs of a draft for each of the feeds."""
    torch = torch_models.need_torch()
    names = [spec.name for spec in artifact.outputs]
    for feed in feeds:
        with one_thread():
            found = outputs_of(module, [torch.from_numpy(feed[spec.name].copy()) for spec in artifact.inputs])
        yield dict(zip(names, [one.numpy() for one in found], strict=True))
