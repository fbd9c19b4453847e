"""What each LiteRT can run: the highest version of each builtin operator that its kernels are registered for.

Measured with the releases' own wheels (x86-64, Python 3.11): models that name one operator in one version (1 to 20) were
loaded, and the highest that loaded stands here. Converters write the lowest version that an operator's use needs, so the
highest over a model tells the oldest runtime. LiteRT for Android is built from the same sources under the same numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent.contract.errors import UsageError
from packager.tflite_model import operator_name

# tflite-runtime 2.14.0, LiteRT's predecessor: highest version to operators.
_BASE = {
    1: """
    ADD_N ASSIGN_VARIABLE ATAN2 BITCAST BITWISE_XOR BROADCAST_ARGS BUCKETIZE CALL_ONCE CEIL COMPLEX_ABS CONV_3D
    CONV_3D_TRANSPOSE COS CUMSUM DENSIFY DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP_SPARSE EXPAND_DIMS FLOOR
    HARD_SWISH HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_LOOKUP HASHTABLE_SIZE IF IMAG L2_POOL_2D
    LOCAL_RESPONSE_NORMALIZATION LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LSH_PROJECTION MATRIX_DIAG
    MATRIX_SET_DIAG MULTINOMIAL NEG NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 ONE_HOT POW PRELU
    RANDOM_STANDARD_NORMAL RANDOM_UNIFORM RANK READ_VARIABLE REAL REDUCE_ALL REDUCE_ANY RELU_0_TO_1 RELU_N1_TO_1
    RESHAPE REVERSE_SEQUENCE RFFT2D RIGHT_SHIFT ROUND SCATTER_ND SEGMENT_SUM SHAPE SIN SKIP_GRAM SQRT SQUARE
    UNIQUE UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_MIN UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_SUM VAR_HANDLE WHILE
    ZEROS_LIKE
    """,
    2: """
    DEPTH_TO_SPACE DIV EXP FAKE_QUANT FLOOR_MOD GELU GREATER L2_NORMALIZATION LEAKY_RELU LESS_EQUAL LOG_SOFTMAX
    RANGE REDUCE_PROD RSQRT SELECT_V2 SIGN SPACE_TO_DEPTH SPLIT_V SQUARED_DIFFERENCE SQUEEZE SUM WHERE
    """,
    3: """
    ARG_MAX ARG_MIN AVERAGE_POOL_2D BIDIRECTIONAL_SEQUENCE_LSTM BIDIRECTIONAL_SEQUENCE_RNN BROADCAST_TO
    EMBEDDING_LOOKUP FLOOR_DIV GREATER_EQUAL LESS LOGISTIC MAX_POOL_2D MEAN MIRROR_PAD NOT_EQUAL QUANTIZE
    REDUCE_MAX REDUCE_MIN RELU RELU6 REVERSE_V2 RNN SOFTMAX SPARSE_TO_DENSE TANH TILE TOPK_V2
    UNIDIRECTIONAL_SEQUENCE_RNN
    """,
    4: """
    BATCH_MATMUL BATCH_TO_SPACE_ND CONCATENATION EQUAL FILL GATHER_ND LSTM MAXIMUM MINIMUM PACK PAD PADV2
    RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SELECT SPACE_TO_BATCH_ND SPLIT SVDF TRANSPOSE_CONV
    UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK
    """,
    5: """
    ABS ADD CAST DEQUANTIZE SUB
    """,
    6: """
    GATHER SLICE TRANSPOSE
    """,
    7: """
    CONV_2D DEPTHWISE_CONV_2D MUL
    """,
    8: """
    STRIDED_SLICE
    """,
    10: """
    FULLY_CONNECTED
    """,
}
_NEWER = {
    "1.0.1": """
    CAST=6 CONV_2D=8 DEQUANTIZE=6 DILATE=1 DYNAMIC_UPDATE_SLICE=2 EMBEDDING_LOOKUP=4 FULLY_CONNECTED=13 GATHER=7
    GATHER_ND=5 LOG=2 REDUCE_WINDOW=1 RSQRT=3 STABLEHLO_ADD=1 STABLEHLO_COMPOSITE=1 STABLEHLO_GATHER=1
    STABLEHLO_MAXIMUM=1 STABLEHLO_MINIMUM=1 STABLEHLO_MULTIPLY=1 STABLEHLO_PAD=1 STABLEHLO_REDUCE_WINDOW=1
    STABLEHLO_RNG_BIT_GENERATOR=1 STABLEHLO_SCATTER=1 TRANSPOSE_CONV=5
    """,
    "1.1.2": """
    CAST=7 DYNAMIC_UPDATE_SLICE=3 STABLEHLO_AND=1 STABLEHLO_CASE=1 STABLEHLO_SHIFT_LEFT=1
    """,
    "1.2.0": """
    TRANSPOSE=7
    """,
    "1.3.0": """
    DYNAMIC_UPDATE_SLICE=4
    """,
    "1.4.0": "",
    "2.0.3": """
    PAD=5 PADV2=5 SQRT=2
    """,
    "2.1.6": """
    ADD=6 CAST=8 CONCATENATION=6 COS=2 DEQUANTIZE=8 DYNAMIC_UPDATE_SLICE=6 EMBEDDING_LOOKUP=5 EQUAL=5
    FULLY_CONNECTED=14 GELU=3 MUL=8 NOT_EQUAL=4 QUANTIZE=6 SIN=2 SLICE=8 SOFTMAX=4 TRANSPOSE=9 UNPACK=5
    """,
    "2.2.0": """
    BROADCAST_TO=4 CAST=9 CONCATENATION=7 DEQUANTIZE=9 FILL=5 GATHER=8 GATHER_ND=6 PACK=5 PAD=6 PADV2=6
    REVERSE_V2=4 SPLIT=5 SPLIT_V=3 UNPACK=6
    """,
    "2.3.0": "",
}
# BROADCAST_TO has no version 1 in any of them; every other operator has all versions up to its highest.


def _tables() -> dict[str, dict[str, int]]:
    current = {name: version for version, names in _BASE.items() for name in names.split()}
    tables = {}
    for release, changes in _NEWER.items():
        current = current | {name: int(version) for name, _, version in (one.partition("=") for one in changes.split())}
        tables[release] = current
    return tables


RELEASES = tuple(_NEWER)


def operator_versions(model: Any) -> dict[str, int]:
    """The highest version of each builtin operator that the model uses; custom operators are left out."""
    found: dict[str, int] = {}
    for graph in model.subgraphs:
        for op in graph.operators:
            code = model.operatorCodes[op.opcodeIndex]
            if code.customCode is None:
                name = operator_name(model, op)
                found[name] = max(found.get(name, 1), int(code.version or 1))
    return found


def oldest_for(wanted: Mapping[str, int]) -> str:
    """The oldest measured release that runs operators of these versions; the newest where none does."""
    for release, table in _tables().items():
        if all(table.get(name, 0) >= version for name, version in wanted.items()):
            return release
    return RELEASES[-1]


def lacking(wanted: Mapping[str, int], release: str) -> dict[str, tuple[int, int]]:
    """Operators that this release does not run, with the version wanted and the highest it has (0: none).

    A release between two measured ones counts as the older. Raises UsageError for what is no version, or older than any
    measured.
    """
    asked = _numbers(release)
    fitting = [known for known in RELEASES if _numbers(known) <= asked]
    if not fitting:
        raise UsageError(
            f"what LiteRT {release} runs is not known",
            expected=f"{RELEASES[0]} or newer: the first LiteRT that was measured",
            fix=f"--min-runtime {RELEASES[0]}",
            code="min-runtime",
        )
    table = _tables()[fitting[-1]]
    return {name: (need, table.get(name, 0)) for name, need in wanted.items() if table.get(name, 0) < need}


def _numbers(version: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(\.\d+){1,3}", version):
        raise UsageError(f"not a version: {version!r}", expected="as in 1.4.0", code="min-runtime")
    return tuple(int(part) for part in version.split("."))
