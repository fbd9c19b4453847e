"""MiniLM-L6 (Wang et al. 2020), a BERT of six layers, as an encoder of sentences: the mean of the tokens, of unit length;
`build` loads the weights beside this file.
"""

from __future__ import annotations

from pathlib import Path

import torch  # noqa: TID253 - copied beside the weights, this is a model of its own
from torch import nn  # noqa: TID253 - as above

LENGTH = 32  # tokens of a text, padded
TOKENS, WIDTH, HEADS, LAYERS = 30522, 384, 12, 6
HIDDEN = -1e4  # what BERT adds to the score of a token that is padding


class Attention(nn.Module):
    """Every token gathers from all that are not padding."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.gathered = nn.Linear(WIDTH, WIDTH)

    def heads(self, x):
        """(n, LENGTH, WIDTH) as (n, HEADS, LENGTH, WIDTH / HEADS)."""
        return x.unflatten(2, (HEADS, WIDTH // HEADS)).transpose(1, 2)

    def forward(self, x, hidden):
        """`hidden` is added to the scores: (n, 1, 1, LENGTH)."""
        query, key, value = self.heads(self.query(x)), self.heads(self.key(x)), self.heads(self.value(x))
        scores = query @ key.transpose(2, 3) / (WIDTH // HEADS) ** 0.5
        mixed = torch.softmax(scores + hidden, 3) @ value
        return self.gathered(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention and two linear layers, each added to its input and normalised."""

    def __init__(self):
        super().__init__()
        self.attention, self.attention_norm = Attention(), nn.LayerNorm(WIDTH, eps=1e-12)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x, hidden):
        """The layer."""
        x = self.attention_norm(x + self.attention(x, hidden))
        return self.norm(x + self.down(nn.functional.gelu(self.up(x))))


class Encoder(nn.Module):
    """`places` holds BERT's position embeddings with the embedding of the first segment added: there is no other."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(TOKENS, WIDTH)
        self.places = nn.Parameter(torch.zeros(LENGTH, WIDTH))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, ids, mask):
        """Embeddings (n, WIDTH) of token numbers and of 1 for a token, 0 for padding, both int64 (n, LENGTH)."""
        kept = mask.float()
        hidden = (1 - kept[:, None, None]) * HIDDEN
        x = self.norm(self.words(ids) + self.places)
        for layer in self.layers:
            x = layer(x, hidden)
        mean = (x * kept[:, :, None]).sum(1) / kept.sum(1, keepdim=True)
        return mean / mean.norm(dim=1, keepdim=True)


def build():
    """The module and an example, as edgepack takes them."""
    net = Encoder()
    net.load_state_dict(torch.load(Path(__file__).with_name("weights.pt"), weights_only=True))
    whole = torch.ones(1, LENGTH, dtype=torch.int64)
    return net.eval(), (whole, whole.clone())
