"""The packages that bring a runtime to a device, from PyPI, and the runtimes that cannot be brought."""

from __future__ import annotations

# runtime -> the packages that bring it (numpy is named: not every runtime asks pip for it)
PACKAGES = {
    "onnxruntime": ("numpy", "onnxruntime"),
    "tflite": ("numpy", "ai-edge-litert"),
}

# runtime -> why it is not brought, and what to do on the device instead. Tried on emulated cores with executorch 1.5.1: with
# torch 2.10.0, the last that is small for aarch64, all is imported on a Cortex-A76, and the first tensor ends in "tensor does
# not have a device" (another layout of its structures); on a Cortex-A72 `import torch` dies of SIGILL, as others have seen on
# a Raspberry Pi 4: https://github.com/pytorch/pytorch/issues/176993. executorch 1.1.0 runs with torch 2.10.0 on a Cortex-A76
# (two programs written by 1.5.1 were right there), but bundles ask for the release that wrote them.
BY_HAND = {
    "executorch": (
        (
            "its Python runtime is compiled against torch 2.13, which its wheel does not bring, and PyPI's torch 2.13 for "
            "Linux is the CUDA build: 0.4 GB for aarch64, and NVIDIA's libraries besides; an older torch is imported and then "
            "fails, and on a Cortex-A72 torch dies of an illegal instruction"
        ),
        (
            "on the device, in a virtual environment: pip install executorch numpy, and the CPU build of torch 2.13; then "
            "`edgepack devices add NAME ADDRESS --python VENV/bin/python`; or build for onnxruntime or tflite"
        ),
    ),
}
