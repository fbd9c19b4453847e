"""The packages that bring a runtime to a device, from PyPI, and the devices that a runtime cannot be brought to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.contract.errors import DeviceError

if TYPE_CHECKING:
    from agent.contract.facts import DeviceFacts

# runtime -> the packages that bring it (numpy is named: not every runtime asks pip for it)
PACKAGES = {
    "onnxruntime": ("numpy", "onnxruntime"),
    "tflite": ("numpy", "ai-edge-litert"),
    # ExecuTorch's aarch64 wheel is linked against one release of torch and does not ask for it; the rest is what importing
    # its Python runtime loads, seen by running it.
    "executorch": (
        "executorch==1.5.1",
        "torch==2.10.0",
        "torchao==0.18.0",
        "numpy",
        "filelock",
        "flatbuffers",
        "jinja2",
        "markupsafe",
        "mpmath",
        "networkx",
        "ruamel.yaml",
        "sympy",
        "tabulate",
        "typing-extensions",
    ),
}

# Fetched exactly as listed. pip judges "only on x86_64" by the host it runs on, and would add CUDA's libraries to torch.
WITHOUT_DEPENDENCIES = frozenset({"executorch"})

_TORCH_BY_HAND = (
    "on the device, in a virtual environment: pip install executorch numpy, and a torch that runs there; then "
    "`edgepack devices add NAME ADDRESS --python VENV/bin/python`"
)


def check_device(runtime: str, facts: DeviceFacts) -> None:
    """Raises DeviceError, code "by-hand", for a device whose processor the runtime's packages are not made for."""
    if runtime != "executorch":
        return
    if facts.machine != "aarch64":
        why = "its Python runtime needs torch, and PyPI's torch for x86 Linux is the CUDA build: GBs of NVIDIA's libraries"
        fix = _TORCH_BY_HAND
    elif "fp16" not in facts.cpu_features:
        # Seen on an emulated Cortex-A72, and by others: https://github.com/pytorch/pytorch/issues/176993
        why = (
            f"its Python runtime needs torch 2.10, whose aarch64 build dies of an illegal instruction on processors before "
            f"ARMv8.2 (seen on a Cortex-A72), and this is a {facts.cpu_model}"
        )
        fix = "build for another runtime: edgepack build MODEL --runtime onnxruntime (or tflite)"
    else:
        return
    raise DeviceError(f"{runtime} cannot be brought to a device like this: {why}", fix=fix, code="by-hand")
