"""The packages that bring a runtime to a device, from PyPI."""

# runtime -> the packages that bring it (numpy is named: not every runtime asks pip for it)
PACKAGES = {
    "onnxruntime": ("numpy", "onnxruntime"),
    "tflite": ("numpy", "ai-edge-litert"),
    "executorch": ("numpy", "executorch"),
}
