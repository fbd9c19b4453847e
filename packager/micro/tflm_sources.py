"""C++ sources for an application with TensorFlow Lite Micro: the model's array, its operators, a main to start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PER_LINE = 16
# Method names of MicroMutableOpResolver that do not follow from the operator's name.
_METHODS = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
    "PADV2": "PadV2",
}


def resolver_method(operator: str) -> str:
    """CONV_2D gives AddConv2D."""
    if operator in _METHODS:
        return "Add" + _METHODS[operator]
    return "Add" + "".join(part.upper() if part == "2D" else part.capitalize() for part in operator.split("_"))


def tflm_sources(
    raw: bytes,
    operators: Mapping[str, int],
    arena_bytes: int,
    quantization: Mapping[str, Mapping[str, Any]],
    note: str = "",
) -> dict[str, bytes]:
    """model_data.h, model_data.cc, model_settings.h, op_resolver.h and main.cc. `operators` says how often each occurs,
    `note` how far they were compiled.
    """
    names = sorted(set(operators))
    texts = {
        "model_data.h": _DATA_H,
        "model_data.cc": _data(raw),
        "model_settings.h": _settings(arena_bytes, quantization),
        "op_resolver.h": _resolver(names),
        "main.cc": _main(operators.get("VAR_HANDLE", 0)).replace(
            "NOTE", note or "Not compiled by edgepack: TensorFlow Lite Micro's sources are yours."
        ),
    }
    return {name: text.encode() for name, text in texts.items()}


_DATA_H = """/* Written by edgepack. */
#ifndef EDGEPACK_MODEL_DATA_H_
#define EDGEPACK_MODEL_DATA_H_

extern const unsigned char g_model_data[];
extern const unsigned int g_model_data_size;

#endif
"""


def _data(raw: bytes) -> str:
    lines = [", ".join(f"0x{one:02x}" for one in raw[i : i + _PER_LINE]) for i in range(0, len(raw), _PER_LINE)]
    rows = ",\n    ".join(lines)
    return f"""/* Written by edgepack: the .tflite file. Aligned, because flatbuffers are read in place. */
#include "model_data.h"

alignas(16) const unsigned char g_model_data[] = {{
    {rows},
}};
const unsigned int g_model_data_size = {len(raw)};
"""


def _settings(arena_bytes: int, quantization: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [f"/* {name}: real = (integer - {q['zero_point']}) * {q['scale']!r} */" for name, q in quantization.items()]
    told = "\n".join(lines)
    return f"""/* Written by edgepack. */
#ifndef EDGEPACK_MODEL_SETTINGS_H_
#define EDGEPACK_MODEL_SETTINGS_H_

/* Measured by search in TensorFlow Lite Micro on a 64-bit host; pointers are smaller on the device. */
constexpr int kTensorArenaSize = {(arena_bytes + 15) // 16 * 16};

{told}

#endif
"""


def _resolver(names: list[str]) -> str:
    calls = "\n".join(f"  if (resolver.{resolver_method(name)}() != kTfLiteOk) return false;" for name in names)
    return f"""/* Written by edgepack: exactly the operators that the model uses. */
#ifndef EDGEPACK_OP_RESOLVER_H_
#define EDGEPACK_OP_RESOLVER_H_
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

using ModelOpResolver = tflite::MicroMutableOpResolver<{len(names)}>;

inline bool AddModelOps(ModelOpResolver& resolver) {{
{calls}
  return true;
}}

#endif
"""


def _main(variables: int) -> str:
    """A model that keeps a state between its runs needs its variables made in the arena first."""
    if not variables:
        return _MAIN
    header = '#include "tensorflow/lite/micro/micro_interpreter.h"\n'
    return _MAIN.replace(header, header + '#include "tensorflow/lite/micro/micro_resource_variable.h"\n').replace(
        _PLAIN,
        f"""  tflite::MicroAllocator* allocator = tflite::MicroAllocator::Create(tensor_arena, kTensorArenaSize);
  if (allocator == nullptr) return 2;
  /* What the model remembers between its runs. */
  tflite::MicroResourceVariables* variables = tflite::MicroResourceVariables::Create(allocator, {variables});
  static tflite::MicroInterpreter interpreter(tflite::GetModel(g_model_data), resolver, allocator, variables);
""",
    )


_PLAIN = """\
  static tflite::MicroInterpreter interpreter(tflite::GetModel(g_model_data), resolver, tensor_arena, kTensorArenaSize);
"""
_MAIN = """/* Written by edgepack: a start. NOTE */
#include "model_data.h"
#include "model_settings.h"
#include "op_resolver.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {
alignas(16) uint8_t tensor_arena[kTensorArenaSize];
}

int main() {
  tflite::InitializeTarget();
  static ModelOpResolver resolver;
  if (!AddModelOps(resolver)) return 1;
  static tflite::MicroInterpreter interpreter(tflite::GetModel(g_model_data), resolver, tensor_arena, kTensorArenaSize);
  if (interpreter.AllocateTensors() != kTfLiteOk) return 2;
  TfLiteTensor* input = interpreter.input(0);
  for (size_t i = 0; i < input->bytes; i++) input->data.int8[i] = 0; /* your data, quantised: see model_settings.h */
  if (interpreter.Invoke() != kTfLiteOk) return 3;
  return interpreter.output(0)->data.int8[0];
}
"""
