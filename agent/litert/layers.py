"""Layers out of LiteRT's events: what ran inside XNNPACK is tied to the operators of the model that it stands for.

XNNPACK names its operators its own way, fuses (a PAD into a convolution) and adds some (a copy before a dense layer), but
keeps the order. So its operators and the model's are aligned in order; what no kind fits stays untied.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Optional, Sequence, Tuple

from agent.contract import statistics
from agent.litert.profiler import DELEGATED, Event, no_layers

OVERHEAD = {"TRANSPOSE", "PAD", "PADV2", "QUANTIZE", "DEQUANTIZE", "CAST"}
_MOVES = {"transpose", "convert", "copy", "staticreshape", "constantpad"}
_INTO_THE_ONE_BEFORE = {"RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"}
_ALIGNED, _MAYBE = 3, 1
_SHAPES = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS"}
_KINDS = {
    "convolution": {"CONV_2D", "DEPTHWISE_CONV_2D"},
    "deconvolution": {"TRANSPOSE_CONV"},
    "fullyconnected": {"FULLY_CONNECTED"},
    "dynamicfullyconnected": {"FULLY_CONNECTED", "BATCH_MATMUL"},
    "batchmatrixmultiply": {"BATCH_MATMUL", "FULLY_CONNECTED"},
    "add": {"ADD"},
    "subtract": {"SUB"},
    "multiply": {"MUL"},
    "divide": {"DIV"},
    "maximum": {"MAXIMUM"},
    "minimum": {"MINIMUM"},
    "squareddifference": {"SQUARED_DIFFERENCE"},
    "maxpooling": {"MAX_POOL_2D"},
    "averagepooling": {"AVERAGE_POOL_2D", "MEAN"},
    "globalaveragepooling": {"AVERAGE_POOL_2D", "MEAN"},
    "mean": {"MEAN", "AVERAGE_POOL_2D"},
    "sum": {"SUM", "MEAN"},
    "softmax": {"SOFTMAX"},
    "sigmoid": {"LOGISTIC"},
    "tanh": {"TANH"},
    "clamp": {"RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"},
    "hardswish": {"HARD_SWISH"},
    "elu": {"ELU"},
    "gelu": {"GELU"},
    "leakyrelu": {"LEAKY_RELU"},
    "prelu": {"PRELU"},
    "abs": {"ABS"},
    "negate": {"NEG"},
    "square": {"SQUARE"},
    "squareroot": {"SQRT"},
    "reciprocalsquareroot": {"RSQRT"},
    "exp": {"EXP"},
    "log": {"LOG"},
    "floor": {"FLOOR"},
    "ceiling": {"CEIL"},
    "bankersrounding": {"ROUND"},
    "copy": _SHAPES | {"CONCATENATION", "SPLIT"},
    "staticreshape": _SHAPES,
    "transpose": {"TRANSPOSE"},
    "constantpad": {"PAD", "PADV2"},
    "slice": {"SLICE", "STRIDED_SLICE", "SPLIT"},
    "resizebilinear": {"RESIZE_BILINEAR"},
    "depthtospace": {"DEPTH_TO_SPACE"},
    "spacetodepth": {"SPACE_TO_DEPTH"},
    "convert": {"QUANTIZE", "DEQUANTIZE", "CAST"},
    "concatenate": {"CONCATENATION"},
    "evensplit": {"SPLIT"},
}


class Node:
    """One operator of the model: its kind, and the names of the tensors it makes."""

    def __init__(self, kind: str, makes: List[str]) -> None:
        self.kind, self.makes = kind, makes


def layers(runs: Sequence[List[Event]], nodes: Sequence[Node], delegates: Sequence[List[int]]) -> List[Dict[str, Any]]:
    """The fields of `agent.contract.protocol.Layer`, in the order the operators ran. `runs` are the events of each inference,
    `delegates` the places of the nodes that each delegate took, in the order they run.

    LiteRT counts whole microseconds and cuts off the rest, so of a layer faster than that nothing is seen.
    """
    first = runs[0]
    if not first or any([one.tag for one in run] != [one.tag for one in first] for run in runs):
        raise no_layers("LiteRT's profiler told no operators, or others in each inference")
    homes = _homes(first, nodes, delegates)
    rows = []
    for place, event in enumerate(first):
        kinds = [nodes[index].kind for index in homes[place]]
        taken = [run[place].elapsed_us * 1000 for run in runs]
        moves = _head(event.tag) in _MOVES
        rows.append(
            {
                "name": event.tag,
                "kind": " ".join(kinds) or event.tag.partition(" (")[0],
                "provider": "xnnpack" if event.kind == DELEGATED else "cpu",
                "time_ns": statistics.middle(taken),
                "overhead": all(kind in OVERHEAD for kind in kinds) if kinds else moves,
                "original": [name for index in homes[place] for name in nodes[index].makes],
            }
        )
    return rows


def _homes(events: List[Event], nodes: Sequence[Node], delegates: Sequence[List[int]]) -> List[List[int]]:
    """The nodes that each event stands for."""
    homes: List[List[int]] = [[] for _ in events]
    parts: List[List[int]] = []
    before: Optional[Event] = None
    for place, event in enumerate(events):
        if event.kind != DELEGATED:
            homes[place] = [event.index] if event.index < len(nodes) else []
        elif before is not None and before.kind == DELEGATED and event.index > before.index:
            parts[-1].append(place)
        else:
            parts.append([place])
        before = event
    if len(parts) == len(delegates):  # else this is not the partition that the interpreter shows: nothing is guessed
        for part, taken in zip(parts, delegates):
            found = aligned([events[place].tag for place in part], [nodes[index].kind for index in taken])
            for place, mine in zip(part, found):
                homes[place] = [taken[index] for index in mine]
    return homes


def aligned(tags: List[str], kinds: List[str]) -> List[List[int]]:
    """For each of XNNPACK's operators the places in `kinds`, in order, that it stands for."""
    scores = [[_fits(tag, kind) for kind in kinds] for tag in tags]
    best = _best(scores, len(tags), len(kinds))
    found: List[List[int]] = [[] for _ in tags]
    owner: Dict[int, int] = {}
    row, column = 0, 0
    while row < len(tags) and column < len(kinds):
        score = scores[row][column]
        if score and best[row][column] == score + best[row + 1][column + 1]:
            owner[column] = row
            row, column = row + 1, column + 1
        elif best[row][column] == best[row + 1][column]:
            row += 1
        else:
            column += 1
    for place in range(len(kinds)):
        home = _owner(place, kinds, owner)
        if home is not None:
            found[home].append(place)
    return found


def _best(scores: List[List[int]], rows: int, columns: int) -> List[List[int]]:
    """The best score of what is left, from each pair of places on."""
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    for row in range(rows - 1, -1, -1):
        for column in range(columns - 1, -1, -1):
            both = scores[row][column] and scores[row][column] + best[row + 1][column + 1]
            best[row][column] = max(both, best[row + 1][column], best[row][column + 1])
    return best


def _owner(place: int, kinds: List[str], owner: Dict[int, int]) -> Optional[int]:
    """Who ran the node of this place: what was fused away is the next one's, an activation the one's before."""
    if place in owner:
        return owner[place]
    ahead = next((owner[one] for one in range(place + 1, len(kinds)) if one in owner), None)
    behind = next((owner[one] for one in range(place - 1, -1, -1) if one in owner), None)
    order: Tuple[Optional[int], Optional[int]] = (ahead, behind)
    if kinds[place] in _INTO_THE_ONE_BEFORE:
        order = (behind, ahead)
    return order[0] if order[0] is not None else order[1]


def _fits(tag: str, kind: str) -> int:
    head = _head(tag)
    if head in _KINDS:
        if head == "convolution" and "DWConv" in tag and kind == "CONV_2D":
            return _MAYBE  # a grouped convolution may be run so
        return _ALIGNED if kind in _KINDS[head] else 0
    return _MAYBE


def _head(tag: str) -> str:
    """`Fully Connected (NC, F32) GEMM`: fullyconnected."""
    return re.sub("[^a-z]", "", tag.partition("(")[0].lower())
