"""Which ONNX operators TensorRT's parser takes, by the version that took each first.

Sources: onnx-tensorrt, docs/operators.md at TensorRT 8.5 and at 10.15 (the operators marked Y), and docs/Changelog.md for
the release in between that brought each; `HOST_ONLY` from the measurements with TensorRT-RTX 1.7.1, which takes more
than TensorRT of the same year. An operator whose release between 8.5 and 10.15 is not written anywhere stands at 10.15:
it is decomposed where ONNX defines how, which is right for every version.
"""

from __future__ import annotations

Version = tuple[int, int]

_IN_8_5 = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip Concat
Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal
Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
Greater GreaterOrEqual GridSample GRU HardSwish HardSigmoid Identity If ImageScaler InstanceNormalization IsNaN
LeakyRelu Less LessOrEqual Log LogSoftmax Loop LRN LSTM LpNormalization LpPool MatMul Max MaxPool Mean
MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or Pad ParametricSoftplus Pow PRelu
QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2
ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
ReverseSequence RNN RoiAlign Round ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin
Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK
Transpose Trilu Unsqueeze Upsample Where Xor
"""
_LATER: dict[str, Version] = {
    "GroupNormalization": (8, 6),
    "LayerNormalization": (8, 6),
    "IsInf": (8, 6),
    "Hardmax": (10, 0),  # 9.2, which no Jetson has
    "DeformConv": (10, 1),
    "BlackmanWindow": (10, 4),
    "HammingWindow": (10, 4),
    "HannWindow": (10, 4),
    "STFT": (10, 5),
    "Attention": (10, 14),
    "CastLike": (10, 15),
    "Gelu": (10, 15),
    "Mish": (10, 15),
    "RMSNormalization": (10, 15),
    "RotaryEmbedding": (10, 15),
    "TensorScatter": (10, 15),
    "Swish": (11, 0),
}
SINCE: dict[str, Version] = dict.fromkeys(_IN_8_5.split(), (8, 5)) | _LATER

# Operators that TensorRT takes while TensorRT-RTX, the host's stand-in for it, does not: its "no" proves nothing.
PROXY_LACKS = frozenset({"NonMaxSuppression", "RoiAlign", "DeformConv"})
# The parser finds TensorRT's own plugins by operator name; RTX has nearly none of them.
PLUGINS = frozenset(
    {
        "EfficientNMS_TRT",
        "EfficientNMS_ONNX_TRT",
        "EfficientNMS_Explicit_TF_TRT",
        "BatchedNMSDynamic_TRT",
        "BatchedNMS_TRT",
        "BatchTilePlugin_TRT",
        "CoordConvAC",
        "CropAndResizeDynamic",
        "DecodeBbox3DPlugin",
        "DisentangledAttention_TRT",
        "GenerateDetection_TRT",
        "InstanceNormalization_TRT",
        "ModulatedDeformConv2d",
        "MultilevelCropAndResize_TRT",
        "MultilevelProposeROI_TRT",
        "MultiscaleDeformableAttnPlugin_TRT",
        "NMSDynamic_TRT",
        "NMS_TRT",
        "PillarScatterPlugin",
        "PriorBox_TRT",
        "ProposalDynamic",
        "PyramidROIAlign_TRT",
        "ROIAlign_TRT",
        "ResizeNearest_TRT",
        "ScatterElements",
        "SpecialSlice_TRT",
        "VoxelGeneratorPlugin",
    }
)
# What to do about operators that users bring and no TensorRT takes.
ADVICE = {
    "QLinearConv": "this is a QOperator model: build from the float model with --recipe int8 (Q/DQ)",
    "QLinearMatMul": "this is a QOperator model: build from the float model with --recipe int8 (Q/DQ)",
    "ConvInteger": "dynamic INT8 is not for TensorRT: build from the float model with --recipe int8",
    "MatMulInteger": "dynamic INT8 is not for TensorRT: build from the float model with --recipe int8",
    "DynamicQuantizeLinear": "dynamic INT8 is not for TensorRT: build from the float model with --recipe int8",
    "Unique": "its output has a data-dependent shape: do this step outside the network",
    "Compress": "its output has a data-dependent shape: do this step outside the network, or use Where",
    "MaxUnpool": "replace it by a Resize or a ConvTranspose before training",
    "StringNormalizer": "do text processing outside the network",
    "TfIdfVectorizer": "do text processing outside the network",
}


def since(operator: str) -> Version | None:
    """The TensorRT version (at least 8.5) whose parser takes the operator; None when no known one does."""
    return SINCE.get(operator)


def takes(operator: str, version: Version) -> bool:
    """Whether the parser of this version takes the operator, restrictions aside."""
    first = SINCE.get(operator)
    return first is not None and first <= version
