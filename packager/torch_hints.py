"""What to do when a user's factory fails while it loads weights: PyTorch's own words know neither the CPU host nor that a
file may come from strangers.
"""

from __future__ import annotations


def hint(error: BaseException) -> str:
    """The way out for the ways in which loading weights usually fails; empty for all else."""
    text = str(error)
    if "deserialize object on a CUDA device" in text or "deserialize object on CUDA device" in text:
        return "the checkpoint was saved on a GPU: torch.load(FILE, map_location='cpu', weights_only=True)"
    if "in loading state_dict" in text:
        return _keys(text)
    if "Weights only load failed" in text or "weights_only" in text:
        return (
            "the file holds more than weights, and loading it would run code: save model.state_dict() where it was made, and"
            " load that with weights_only=True; weights_only=False only for a file of your own"
        )
    return ""


def _keys(text: str) -> str:
    if "size mismatch" in text:
        return "the weights belong to another size of this network: build it with the settings that it was trained with"
    missing, unexpected = "Missing key" in text, "Unexpected key" in text
    if missing and unexpected and ("module." in text or "_orig_mod." in text):
        return "strip the prefix that DataParallel ('module.') or torch.compile ('_orig_mod.') put before the keys"
    if missing and unexpected:
        return "the checkpoint belongs to another architecture, or holds its state dict under a key of its own"
    if missing:
        return "the checkpoint lacks weights that the network has: untrained layers would be shipped"
    return "the checkpoint has weights that the network lacks: build the network that it was trained as"
