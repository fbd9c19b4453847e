"""A profile's layers tied to the nodes of the model in the bundle: runtimes fuse, rename, and add layers of their own."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract import archive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.contract.protocol import Layer
    from agent.contract.report import Report

_EVEN_IF_NAMED = ("Transpose", "Pad")  # a model may have these of its own; Q/DQ and casts only conversion brings
_WRAPPED = "wrapped"  # the model inside litert-torch's ChannelLastIOWrapper
_WORD = re.compile(r"[\w./:-]")


def tie(report: Report, bundle: str | Path) -> Report:
    """The report with `original` filled in, where the bundle holds an ONNX model; a TFLite model's tensors told as the
    original's modules, where they bear their names.
    """
    if report.profile is None or not report.profile.layers:
        return report
    with archive.BundleReader(bundle) as reader:
        model = reader.manifest.model
        raw = reader.read(model) if model.endswith(".onnx") else b""
    if model.endswith(".tflite"):
        layers = [dataclasses.replace(one, original=plain(one.original)) for one in report.profile.layers]
    elif raw:
        import onnx

        layers = tied(report.profile.layers, list(onnx.load_model_from_string(raw).graph.node))
    else:
        return report
    return dataclasses.replace(report, profile=dataclasses.replace(report.profile, layers=layers))


def plain(tensors: Iterable[str]) -> list[str]:
    """The names of TFLite tensors as the model's author knows them. A converter joins, with semicolons, the places of all
    that was fused; litert-torch's places are paths of classes with attributes: `a.Net_/b.Sequential_body/c.Conv2d_0`.
    """
    places: list[str] = []
    for name in tensors:
        parts = [part for part in name.split(";") if part and not part.isdigit()]
        paths = [_module(part) if "torch." in name else part for part in parts]
        inner = [one for one in paths if not any(other.startswith(f"{one}.") for other in paths)]
        places += [one for one in inner if one not in places]
    return places


def _module(place: str) -> str:
    """`litert_torch.X.ChannelLastIOWrapper/user.Net_wrapped/torch.nn.modules.conv.Conv2d_stem`: stem."""
    classes = [part.rpartition(".")[2].partition("_") for part in place.split("/")]
    inner = [attribute for _, _, attribute in classes if attribute and attribute != _WRAPPED]
    return ".".join(inner) or classes[-1][0]


def tied(layers: Iterable[Layer], nodes: list[Any]) -> list[Layer]:
    """By name first: a layer bears the names of its nodes, or of the tensors they make, with the runtime's additions. What
    bears none was fused away: it goes to the layer of its neighbour, the one of its own kind if there is one.
    """
    known: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in (node.name, *node.output):
            if name:
                known.setdefault(name, index)
    longest = sorted(known, key=len, reverse=True)
    layers = list(layers)
    home: dict[int, int] = {}
    for place, layer in enumerate(layers):
        for name in _names_in(layer.name, longest):
            home.setdefault(known[name], place)
    _settle(nodes, layers, home)
    found = []
    for place, layer in enumerate(layers):
        of_it = [nodes[index] for index in sorted(home) if home[index] == place]
        own = layer.kind in _EVEN_IF_NAMED and any(node.op_type == layer.kind for node in of_it)
        names = [node.name or node.output[0] for node in of_it]
        found.append(dataclasses.replace(layer, original=names, overhead=layer.overhead and not own))
    return found


def _names_in(text: str, longest: list[str]) -> list[str]:
    """The known names in `text`, none inside another: whole words, which an underscore and a suffix may follow."""
    found = []
    for name in longest:
        at = text.find(name)
        if at < 0:
            continue
        before, after = text[at - 1 : at], text[at + len(name) : at + len(name) + 1]
        if (before and _WORD.match(before) and before != "_") or (after and _WORD.match(after) and after != "_"):
            continue
        found.append(name)
        text = text[:at] + " " * len(name) + text[at + len(name) :]
        if not text.strip():
            break
    return found


def _settle(nodes: list[Any], layers: list[Layer], home: dict[int, int]) -> None:
    maker = {name: index for index, node in enumerate(nodes) for name in node.output}
    users: dict[int, list[int]] = defaultdict(list)
    makers: dict[int, list[int]] = defaultdict(list)
    for index, node in enumerate(nodes):
        for name in node.input:
            if name in maker:
                users[maker[name]].append(index)
                makers[index].append(maker[name])
    held = {(place, nodes[index].op_type) for index, place in home.items()}
    changed = True
    while changed:
        changed = False
        for index, node in enumerate(nodes):
            if index in home or node.op_type == "Constant":
                continue
            near = [home[one] for one in (*makers[index], *users[index]) if one in home]
            alike = [one for one in near if node.op_type in layers[one].kind]
            free = [one for one in alike if (one, node.op_type) not in held]
            if near:
                home[index] = (free or alike or near)[0]
                held.add((home[index], node.op_type))
                changed = True
