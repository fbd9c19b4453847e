"""Twenty architectures of `transformers`, built from small configs with random weights: factories for benchmarks.

`benchmarks/architectures.py:bert` is (module, examples); `benchmarks/architectures.py:bert_samples` thirty-two inputs like
them. What is measured on them is parity and coverage, never accuracy.
"""

from __future__ import annotations

import importlib
from typing import Any

TEXT = {
    "vocab_size": 500,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
DEEP = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "vocab_size": 500}
PICTURE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
PATCHES = {**PICTURE, "image_size": 32, "patch_size": 8}
STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 48, 64]}
WRITER = {"vocab_size": 500, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
# Class prefix, config, kind of input and its size.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], int]] = {
    "bert": ("Bert", TEXT, 0),
    "roberta": ("Roberta", {**TEXT, "max_position_embeddings": 64}, 0),
    "distilbert": ("DistilBert", DEEP, 0),
    "albert": ("Albert", {**TEXT, "embedding_size": 32}, 0),
    "electra": ("Electra", {**TEXT, "embedding_size": 32}, 0),
    "mpnet": ("MPNet", TEXT, 0),
    "vit": ("ViT", PATCHES, 32),
    "deit": ("DeiT", PATCHES, 32),
    "resnet": ("ResNet", {**STAGES, "embedding_size": 16, "layer_type": "basic"}, 64),
    "mobilenet_v2": ("MobileNetV2", {"image_size": 64, "depth_multiplier": 0.35}, 64),
    "convnext": ("ConvNext", STAGES, 64),
    "regnet": ("RegNet", {**STAGES, "embedding_size": 16, "groups_width": 8}, 64),
    "gpt2": ("GPT2", WRITER, 0),
    "camembert": ("Camembert", {**TEXT, "max_position_embeddings": 64}, 0),
    "squeezebert": ("SqueezeBert", {**TEXT, "embedding_size": 64}, 0),
    "roformer": ("RoFormer", {**TEXT, "embedding_size": 64}, 0),
    "dinov2": ("Dinov2", {**PATCHES, "mlp_ratio": 2}, 32),
    "beit": ("Beit", PATCHES, 32),
    "convnextv2": ("ConvNextV2", STAGES, 64),
    "poolformer": ("PoolFormer", {**STAGES, "num_encoder_blocks": 4}, 64),
}


def __getattr__(name: str) -> Any:
    if name in ARCHITECTURES:
        return lambda: make(name)
    if name.removesuffix("_samples") in ARCHITECTURES:
        return lambda: samples(name.removesuffix("_samples"))
    raise AttributeError(name)


def make(name: str) -> Any:
    """(module, examples); weights seeded by the caller."""
    import torch

    transformers = importlib.import_module("transformers")
    prefix, settings, size = ARCHITECTURES[name]
    config = getattr(transformers, f"{prefix}Config")(**settings)
    config._attn_implementation = "eager"  # noqa: SLF001 - a public setting only of from_pretrained
    inner = getattr(transformers, f"{prefix}Model")(config).eval()
    for module in inner.modules():
        # Some configs' own initial weights are so small that a deep network's output is zero, and denormals on the way.
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)

    class Hidden(torch.nn.Module):
        """The last hidden state alone, under an input's plain name."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Any) -> Any:
            return self.inner(x, return_dict=False)[0]

    example = torch.randn(1, 3, size, size) if size else torch.randint(3, 500, (1, 32))
    return Hidden().eval(), (example,)


def samples(name: str) -> dict[str, Any]:
    """Thirty-two inputs like the example."""
    import torch

    generator = torch.Generator().manual_seed(2)
    example = make(name)[1][0]
    shape = (32, *example.shape[1:])
    if example.is_floating_point():
        return {"x": torch.randn(shape, generator=generator).numpy()}
    return {"x": torch.randint(3, 500, shape, generator=generator).numpy()}
