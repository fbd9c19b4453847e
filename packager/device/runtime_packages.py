"""The packages that bring a runtime to a device, from PyPI, and the runtimes that cannot be brought."""

from __future__ import annotations

# runtime -> the packages that bring it (numpy is named: not every runtime asks pip for it)
PACKAGES = {
    "onnxruntime": ("numpy", "onnxruntime"),
    "tflite": ("numpy", "ai-edge-litert"),
}

# runtime -> why it is not brought, and what to do on the device instead
BY_HAND = {
    "executorch": (
        (
            "its Python runtime needs torch, which its wheel does not ask for; PyPI's torch for Linux is the CUDA build: "
            "0.5 GB for aarch64, and NVIDIA's libraries besides"
        ),
        (
            "on the device, in a virtual environment: pip install executorch numpy, and the CPU build of the torch release "
            "that it was built for; then `edgepack devices add NAME ADDRESS --python "
            "VENV/bin/python`"
        ),
    ),
}
