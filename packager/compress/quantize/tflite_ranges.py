"""What values the tensors of a float TFLite model take over the calibration samples."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.tflite_model import need, parse_model, text

if TYPE_CHECKING:
    import numpy as np

    Feeds = Iterable[Mapping[str, np.ndarray[Any, Any]]]

_MOST = 3e38  # the quantiser's own limit: what lies beyond pads a maximum, and is no activation


def kept_ranges(raw: bytes, rules: Any, feeds: Feeds, cache: Path | None) -> Any:
    """As `true_ranges`; from the folder where they have been measured already."""
    if cache is None:
        return true_ranges(raw, rules, feeds)
    import numpy as np

    place = cache / f"ranges-{hashlib.sha256(raw + repr(rules).encode()).hexdigest()[:24]}.npz"
    if not place.exists():
        found = true_ranges(raw, rules, feeds)
        flat = {f"{name}|{key}": np.asarray(value) for name, one in found.items() for key, value in one.items()}
        np.savez(place, **flat)
    ranges: dict[str, dict[str, Any]] = {}
    with np.load(place, allow_pickle=False) as kept:
        for label in kept.files:
            name, _, key = label.rpartition("|")
            ranges.setdefault(name, {})[key] = kept[label]
    return ranges


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
        _widen(found, raw, key, rest, threads)
    return found


def _widen(found: dict[str, dict[str, Any]], raw: bytes, key: str, feeds: Feeds, threads: int) -> None:
    """Brings more samples into the ranges, in place."""
    import numpy as np

    utils = need("ai_edge_quantizer.utils.tfl_interpreter_utils")
    interpreter = utils.create_tfl_interpreter(raw, num_threads=threads, preserve_all_tensors=True)
    run = interpreter.get_signature_runner(key)
    places = {one["name"]: one["index"] for one in interpreter.get_tensor_details() if np.all(one["shape"])}
    wanted = [(ranges, places[name]) for name, ranges in found.items() if {"min", "max"} <= ranges.keys()]
    for ranges, _ in wanted:
        ranges.pop("num_samples", None)  # of the first one
    for feed in feeds:
        run(**feed)
        for ranges, place in wanted:
            values = interpreter.get_tensor(place)
            low, high = values.min(), values.max()
            if not (low > -_MOST and high < _MOST):  # also where there is a NaN
                values = values[(values > -_MOST) & (values < _MOST)]
                if not values.size:
                    continue
                low, high = values.min(), values.max()
            ranges["min"] = np.minimum(ranges["min"], low)
            ranges["max"] = np.maximum(ranges["max"], high)
