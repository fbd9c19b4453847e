"""What values the tensors of a float TFLite model take over the calibration samples."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.compress.quantize.clipping import BINS, MOST_SAMPLES, clipped
from packager.tflite_model import constant, need, parse_model, text

if TYPE_CHECKING:
    import numpy as np

    from packager.recipe import Recipe

    Array = np.ndarray[Any, Any]
    Feeds = Iterable[Mapping[str, Array]]
    # Calibration samples by input name; the argument says how many, evenly spread, None for all.
    Samples = Callable[[int | None], Feeds]

_MOST = 3e38  # the quantiser's own limit: what lies beyond pads a maximum, and is no activation


def kept_ranges(raw: bytes, rules: Any, feeds: Samples, recipe: Recipe, cache: Path | None) -> Any:
    """The ranges by the recipe's method, as `true_ranges` has them; from the folder where they have been measured already."""
    if cache is None:
        found = true_ranges(raw, rules, feeds(None))
        return found if recipe.method == "minmax" else clip_ranges(found, histograms(raw, found, feeds), recipe)
    place = cache / f"ranges-{hashlib.sha256(raw + repr(rules).encode()).hexdigest()[:24]}.npz"
    found = _unfold(kept_arrays(place, lambda: _fold(true_ranges(raw, rules, feeds(None)))))
    if recipe.method == "minmax":
        return found
    place = place.with_name(place.name.replace("ranges-", "histograms-"))
    return clip_ranges(found, kept_arrays(place, lambda: histograms(raw, found, feeds)), recipe)


def kept_arrays(place: Path, measure: Callable[[], Mapping[str, Array]]) -> dict[str, Array]:
    """What is in the file, which is written first where there is none."""
    import numpy as np

    if not place.exists():
        # A tensor may have the name of an argument of savez.
        np.savez(place, **{f"of {name}": value for name, value in measure().items()})  # type: ignore[arg-type]
    with np.load(place, allow_pickle=False) as kept:
        return {name.removeprefix("of "): kept[name] for name in kept.files}


def _fold(ranges: Mapping[str, Mapping[str, Any]]) -> dict[str, Array]:
    import numpy as np

    return {f"{name}|{key}": np.asarray(value) for name, one in ranges.items() for key, value in one.items()}


def _unfold(flat: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    ranges: dict[str, dict[str, Any]] = {}
    for label, value in flat.items():
        name, _, key = label.rpartition("|")
        ranges.setdefault(name, {})[key] = value
    return ranges


def histograms(raw: bytes, ranges: Mapping[str, Mapping[str, Any]], feeds: Samples) -> dict[str, Array]:
    """Of every computed tensor of the first graph in `ranges`, over some of the samples: `BINS` bins from end to end, 0
    between them.
    """
    import numpy as np

    model = parse_model(raw)
    made = {text(one.name) for one in model.subgraphs[0].tensors if constant(model, one) is None}
    edges = {name: _ends(one) for name, one in ranges.items() if name in made and {"min", "max"} <= one.keys()}
    edges = {name: (low, high) for name, (low, high) in edges.items() if low < high}
    counts = {name: np.zeros(BINS) for name in edges}
    for value in tensor_values(raw, feeds(MOST_SAMPLES)):
        for name, ends in edges.items():
            counts[name] += np.histogram(value(name), BINS, ends)[0]
    return counts


def clip_ranges(ranges: Mapping[str, Mapping[str, Any]], counts: Mapping[str, Array], recipe: Recipe) -> Any:
    """The ranges with both ends drawn in. LiteRT's INT8 activations have a zero point, its 16-bit ones have none."""
    import numpy as np

    found = {name: dict(one) for name, one in ranges.items()}
    for name, hist in counts.items():
        ends = clipped(hist, *_ends(found[name]), recipe, symmetric=recipe.precision == "int16x8")
        for key, end in zip(("min", "max"), ends, strict=True):
            found[name][key] = np.full_like(found[name][key], end)
    return found


def _ends(one: Mapping[str, Any]) -> tuple[float, float]:
    return min(float(one["min"].min()), 0.0), max(float(one["max"].max()), 0.0)


def tensor_values(raw: bytes, feeds: Feeds) -> Iterator[Callable[[str], Array]]:
    """For each sample that the first graph is run on, a function that gives a tensor's values by its name."""
    import numpy as np

    key = text(parse_model(raw).signatureDefs[0].signatureKey)
    utils = need("ai_edge_quantizer.utils.tfl_interpreter_utils")
    interpreter = utils.create_tfl_interpreter(raw, num_threads=os.cpu_count() or 1, preserve_all_tensors=True)
    run = interpreter.get_signature_runner(key)
    places = {one["name"]: one["index"] for one in interpreter.get_tensor_details() if np.all(one["shape"])}
    for feed in feeds:
        run(**feed)
        yield lambda name: interpreter.get_tensor(places[name])


def true_ranges(raw: bytes, rules: Any, feeds: Feeds) -> Any:
    """The true least and greatest value of every tensor over all samples, as ai-edge-quantizer takes them.

    The quantiser's own default is a moving average, which forgets all but the first samples' ranges. It looks every operator's
    rules up again for every sample, which takes longer than the model: it is given the first sample, to say which tensors it
    wants, and the others are measured here.
    """
    manager = need("ai_edge_quantizer.recipe_manager").RecipeManager()
    manager.load_quantization_recipe(rules)
    update = need("ai_edge_quantizer.utils.qsv_utils").min_max_update
    threads = os.cpu_count() or 1
    measuring = need("ai_edge_quantizer.calibrator").Calibrator(raw, num_threads=threads, qsv_update_func=update)
    model, rest = parse_model(raw), iter(feeds)
    key = text(model.signatureDefs[0].signatureKey)
    # Those that keep a state, and those of several graphs, need every sample in the quantiser's own order.
    alone = len(model.subgraphs) == 1 and not any(tensor.isVariable for tensor in model.subgraphs[0].tensors)
    first = list(itertools.islice(rest, 1)) if alone else list(rest)
    measuring.calibrate({key: [dict(feed) for feed in first]}, manager)
    found = measuring.get_model_qsvs()
    if alone:
        _widen(found, raw, rest)
    return found


def _widen(found: dict[str, dict[str, Any]], raw: bytes, feeds: Feeds) -> None:
    """Brings more samples into the ranges, in place."""
    import numpy as np

    wanted = {name: ranges for name, ranges in found.items() if {"min", "max"} <= ranges.keys()}
    for ranges in wanted.values():
        ranges.pop("num_samples", None)  # of the first one
    for value in tensor_values(raw, feeds):
        for name, ranges in wanted.items():
            values = value(name)
            low, high = values.min(), values.max()
            if not (low > -_MOST and high < _MOST):  # also where there is a NaN
                values = values[(values > -_MOST) & (values < _MOST)]
                if not values.size:
                    continue
                low, high = values.min(), values.max()
            ranges["min"] = np.minimum(ranges["min"], low)
            ranges["max"] = np.maximum(ranges["max"], high)
