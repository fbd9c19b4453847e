"""Graph optimisation of ONNX: transformer parts fused (attention, layer norm, GELU), HardSwish joined, constants folded, also
into convolutions, dead nodes dropped.

By onnxruntime.transformers.optimizer, onnxruntime's own basic passes, and ours. Fused and unfused are compared: a fusion that
computes something else is refused, and one that buys no speed says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.contract.errors import ConvertError, unknown_name
from packager.compress.speed import Speed, compare
from packager.onnx_factors import fold_factors
from packager.onnx_hard_swish import HARD_SWISH_OPSET, join_hard_swish
from packager.onnx_model import clean, load_model, need_onnxruntime, opset, save_model

# Tried in this order; the first that fuses the most attention is the graph's type.
TYPES = ("bert", "vit", "gpt2", "bart", "clip", "t5", "conformer")
_ATTENTION = ("Attention", "MultiHeadAttention", "QAttention")
FUSED = (
    *_ATTENTION,
    "LayerNormalization",
    "SkipLayerNormalization",
    "EmbedLayerNormalization",
    "Gelu",
    "BiasGelu",
    "FastGelu",
)
_LEAST_COSINE = 0.9999
_MOST_OFF = 1e-3  # of the largest output: sums in another order


@dataclasses.dataclass(frozen=True)
class Fusion:
    """What was done. `fused` counts the fused operators; `model_type` is empty where none of the transformer's was found."""

    path: Path
    companions: tuple[Path, ...]
    model_type: str
    heads: int
    hidden: int
    nodes_before: int
    nodes_after: int
    fused: dict[str, int]
    worst_cosine: float
    speed: Speed | None = None

    @property
    def verdict(self) -> str:
        """In words."""
        told = ", ".join(f"{count} {name}" for name, count in self.fused.items()) or "nothing"
        text = f"{self.nodes_before} -> {self.nodes_after} nodes; fused: {told}; cosine {self.worst_cosine:.6f}"
        if self.speed is None:
            return text
        low, high = self.speed.interval
        return f"{text}; {self.speed.verdict} ({self.speed.ratio:.2f}x, {low:.2f} to {high:.2f}) on this machine"

    def document(self) -> dict[str, Any]:
        """For --json."""
        made = {key: getattr(self, key) for key in ("model_type", "heads", "hidden", "nodes_before", "nodes_after")}
        speed = None if self.speed is None else self.speed.document()
        return {**made, "fused": self.fused, "cosine": self.worst_cosine, "speed": speed, "verdict": self.verdict}


def fuse(
    source: Path,
    result: Path,
    feeds: Sequence[Mapping[str, Any]],
    *,
    model_type: str = "auto",
    heads: int = 0,
    hidden: int = 0,
    measure_seconds: float = 1.0,
) -> Fusion:
    """Writes the optimised model to `result`. `heads` and `hidden` of 0 are read from the graph; `feeds` are inputs on which
    both forms must agree. Raises ConvertError when they do not (code `fuse-parity`), UsageError for an unknown type.
    """
    if model_type not in ("auto", "none", *TYPES):
        raise unknown_name("model type", model_type, ("auto", "none", *TYPES))
    before = load_model(source)
    heads, hidden = heads or infer_heads(before), hidden or infer_hidden(before)
    kind, model = _fused(source, model_type, heads, hidden)
    plain = result.with_name(result.stem + "-plain.onnx")
    save_model(clean(model), plain)
    folded = _folded(plain, result.with_name(result.stem + "-folded.onnx"))
    # Joined afterwards: onnxruntime's folding takes HardSwish apart.
    joined = join_hard_swish(folded) if opset(folded) >= HARD_SWISH_OPSET else 0
    constants = fold_factors(folded)
    companions = save_model(clean(folded), result)
    cosine = _compare(source, result, feeds)
    counts = Counter(node.op_type for node in folded.graph.node)
    already = Counter(node.op_type for node in before.graph.node)
    fused = {name: counts[name] - already[name] for name in FUSED if counts[name] > already[name]}
    own = {"HardSwish": joined - already["HardSwish"], "constants into convolutions": constants}
    fused |= {name: count for name, count in own.items() if count > 0}
    speed = compare(source, result, feeds[0], seconds=measure_seconds) if measure_seconds else None
    sizes = len(before.graph.node), len(folded.graph.node)
    return Fusion(result, companions, kind, heads, hidden, *sizes, fused=fused, worst_cosine=cosine, speed=speed)


def infer_heads(model: Any) -> int:
    """The number of attention heads: from the reshapes to [batch, length, heads, size] before a transposition to
    [batch, heads, length, size]; 0 where there are none.
    """
    shapes = _constants(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    found: Counter[int] = Counter()
    for node in model.graph.node:
        if node.op_type != "Transpose":
            continue
        order = [list(one.ints) for one in node.attribute if one.name == "perm"]
        maker = makers.get(node.input[0])
        if not order or order[0] not in ([0, 2, 1, 3], [0, 2, 3, 1]) or maker is None or maker.op_type != "Reshape":
            continue
        shape = _reshape_to(maker.input[1], shapes, makers)
        if len(shape) == 4 and shape[2] and shape[2] > 0:  # noqa: PLR2004 - batch, length, heads, size
            found[shape[2]] += 1
    return found.most_common(1)[0][0] if found else 0


def infer_hidden(model: Any) -> int:
    """The hidden size: the most frequent size of layer norm weights, or of the vectors added to matrix products; else 0."""
    arrays = {one.name: list(one.dims) for one in model.graph.initializer}
    names = [name for node in model.graph.node if node.op_type == "LayerNormalization" for name in node.input[1:2]]
    if not names:
        # Not fused yet: a layer norm ends in a multiplication by its weights, after the division.
        makers = {name: node.op_type for node in model.graph.node for name in node.output}
        for node in model.graph.node:
            if node.op_type == "Mul" and any(makers.get(one) == "Div" for one in node.input):
                names += [one for one in node.input if one in arrays]
    sizes = Counter(arrays[name][0] for name in names if len(arrays.get(name, ())) == 1)
    return sizes.most_common(1)[0][0] if sizes else 0


def _constants(model: Any) -> dict[str, list[int]]:
    from onnx import TensorProto, numpy_helper

    found = {}
    for one in model.graph.initializer:
        if one.data_type == TensorProto.INT64 and len(one.dims) <= 1:
            found[one.name] = numpy_helper.to_array(one).reshape(-1).tolist()
    for node in model.graph.node:
        if node.op_type == "Constant":
            for one in node.attribute:
                if one.name == "value" and one.t.data_type == TensorProto.INT64:
                    found[node.output[0]] = numpy_helper.to_array(one.t).reshape(-1).tolist()
    return found


def _reshape_to(name: str, known: Mapping[str, list[int]], makers: Mapping[str, Any]) -> list[int]:
    """The sizes a Reshape goes to, unknown ones as -1; also where exporters concatenate them."""
    if name in known:
        return list(known[name])
    maker = makers.get(name)
    if maker is None or maker.op_type != "Concat":
        return []
    sizes: list[int] = []
    for part in maker.input:
        if part not in known and part in makers and makers[part].op_type == "Unsqueeze":
            part = makers[part].input[0]  # noqa: PLW2901 - the scalar behind it
        sizes += known.get(part, [-1])
    return sizes


def _fused(source: Path, model_type: str, heads: int, hidden: int) -> tuple[str, Any]:
    best, found = load_model(source), ""
    if model_type == "none":
        return found, best
    score = (0, 0)
    for kind in TYPES if model_type == "auto" else (model_type,):
        made = _optimised(source, kind, heads, hidden)
        if made is None:
            continue
        counts = Counter(node.op_type for node in made.graph.node)
        this = (sum(counts[name] for name in _ATTENTION), -len(made.graph.node))
        if this > score or not found:
            best, found, score = made, kind, this
        if kind == "bert" and not any(counts[name] for name in FUSED):
            return "", best  # no layer norm, no GELU: no transformer, whatever it is called
    return found, best


def _optimised(source: Path, kind: str, heads: int, hidden: int) -> Any:
    need_onnxruntime()
    from onnxruntime.transformers import optimizer

    usable = heads and hidden and hidden % heads == 0
    try:
        with _quiet():
            made = optimizer.optimize_model(
                str(source),
                model_type=kind,
                num_heads=heads if usable else 0,
                hidden_size=hidden if usable else 0,
                opt_level=0,
                use_gpu=False,
            )
            return made.model
    except Exception:  # noqa: BLE001 - the optimiser's passes fail in any way on graphs that they were not made for
        return None


def _folded(source: Path, result: Path) -> Any:
    """Constants folded and dead nodes dropped by onnxruntime's basic passes, which write standard operators only."""
    onnxruntime = need_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(result)
    try:
        onnxruntime.InferenceSession(
            str(source), options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
        )
        return load_model(result)
    except Exception as error:
        # onnxruntime's exceptions have no common base below Exception.
        raise ConvertError(
            f"onnxruntime does not load the fused model: {str(error)[:400]}",
            fix='leave the step out, or give another model_type ("none" folds only)',
            code="fuse-failed",
        ) from error


def _compare(before: Path, after: Path, feeds: Sequence[Mapping[str, Any]]) -> float:
    """The worst cosine over all outputs and feeds. Raises ConvertError below the bound."""
    import numpy as np

    from packager.sources.onnx import run_onnx

    names = [one.name for one in load_model(before, weights=False).graph.output]
    worst, far = 1.0, 0.0
    left: Any
    right: Any
    rows = zip(run_onnx(before, list(feeds), names), run_onnx(after, list(feeds), names), strict=True)
    for want, got in ((one[name], other[name]) for one, other in rows for name in names):
        if want.dtype.kind != "f":
            if not np.array_equal(want, got):
                worst = -1.0
            continue
        left, right = want.astype(np.float64).ravel(), got.astype(np.float64).ravel()
        size = float(np.linalg.norm(left) * np.linalg.norm(right))
        if left.size:
            far = max(far, float(np.abs(left - right).max()) / max(float(np.abs(left).max()), 1e-12))
        worst = min(worst, float(left @ right) / size if size else float(np.array_equal(left, right)))
    if not worst >= _LEAST_COSINE or not far <= _MOST_OFF or math.isnan(worst):
        raise ConvertError(
            f"the fused model computes something else: cosine {worst:.6f}, largest difference {far:.2g} of the output",
            expected=f"a cosine of {_LEAST_COSINE}, at most {_MOST_OFF:g} of the largest output",
            fix="check heads and hidden of the fuse step, or leave the step out",
            code="fuse-parity",
        )
    return worst


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    import sys

    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logging.disable(level)
