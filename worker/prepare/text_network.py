"""The text encoder as a torch network: all-MiniLM-L6-v2, a BERT of six layers (arXiv 1810.04805, 2002.10957).

Used once, at preparation, to write the graph that jobs run. Names of the parameters are those of the weights' file.
Mean pooling over the tokens and length 1 are inside (Sentence-BERT, arXiv 1908.10084), so the graph has one output.

Shape legend: N texts, L tokens, E width, H heads.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

WIDTH, INNER, HEADS, LAYERS = 384, 1536, 12, 6
VOCABULARY, POSITIONS, SEGMENTS = 30522, 512, 2
EPSILON = 1e-12
# In the file, and of no use here: positions are counted, and the pooler is not what sentences are compared by.
UNUSED = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")


class Layer(nn.Module):
    """Attention, then two dense layers; each with what it was given added, then normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.mixed = nn.Linear(WIDTH, WIDTH)
        self.mixed_norm = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.inner = nn.Linear(WIDTH, INNER)
        self.outer = nn.Linear(INNER, WIDTH)
        self.outer_norm = nn.LayerNorm(WIDTH, eps=EPSILON)

    def forward(self, states_NLE: Tensor, bias_N11L: Tensor) -> Tensor:
        """States of the next layer.

        Shape:
            states_NLE: [N, L, E]
            bias_N11L: [N, 1, 1, L], 0 for a token and very negative for padding
        """
        query, key, value = (_by_head(part(states_NLE)) for part in (self.query, self.key, self.value))
        scores_NHLL = query @ key.transpose(2, 3) / (WIDTH // HEADS) ** 0.5 + bias_N11L
        seen_NLE = (scores_NHLL.softmax(-1) @ value).transpose(1, 2).flatten(2)
        mixed_NLE = self.mixed_norm(self.mixed(seen_NLE) + states_NLE)
        normed: Tensor = self.outer_norm(self.outer(functional.gelu(self.inner(mixed_NLE))) + mixed_NLE)
        return normed


class TextNetwork(nn.Module):
    """Token numbers and mask -> one vector of length 1 for each text."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.segments = nn.Embedding(SEGMENTS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, tokens_NL: Tensor, mask_NL: Tensor) -> Tensor:
        """Embeddings.

        Shape:
            tokens_NL: [N, L] int64
            mask_NL: [N, L] int64, 1 for a token and 0 for padding
            result: [N, E]
        """
        states_NLE = self.words(tokens_NL) + self.positions.weight[: tokens_NL.shape[1]] + self.segments.weight[0]
        states_NLE = self.norm(states_NLE)
        mask_NL1 = mask_NL.to(states_NLE.dtype)[:, :, None]
        bias_N11L = (1.0 - mask_NL1.transpose(1, 2)[:, None]) * -1e9
        for layer in self.layers:
            states_NLE = layer(states_NLE, bias_N11L)
        mean_NE = (states_NLE * mask_NL1).sum(1) / mask_NL1.sum(1)
        return functional.normalize(mean_NE, dim=1)


def load(weights: Path) -> TextNetwork:
    """The network with the weights of a file that has the names of the original; every other name is an error."""
    network = TextNetwork().eval()
    state = {_ours(name): value for name, value in load_file(weights).items() if name not in UNUSED}
    network.load_state_dict(state, strict=True)
    return network.requires_grad_(False)


def _ours(name: str) -> str:
    """A name of the weights' file in this network."""
    for theirs, ours in NAMES:
        name = name.replace(theirs, ours)
    return name


NAMES = (
    ("embeddings.word_embeddings.", "words."),
    ("embeddings.position_embeddings.", "positions."),
    ("embeddings.token_type_embeddings.", "segments."),
    ("embeddings.LayerNorm.", "norm."),
    ("encoder.layer.", "layers."),
    ("attention.self.", ""),
    ("attention.output.dense.", "mixed."),
    ("attention.output.LayerNorm.", "mixed_norm."),
    ("intermediate.dense.", "inner."),
    ("output.dense.", "outer."),
    ("output.LayerNorm.", "outer_norm."),
)


def _by_head(states_NLE: Tensor) -> Tensor:
    """[N, L, E] -> [N, H, L, E / H]."""
    return states_NLE.reshape(*states_NLE.shape[:2], HEADS, WIDTH // HEADS).transpose(1, 2)


def example() -> tuple[Tensor, Tensor]:
    """Inputs that the exporter traces: two texts of different lengths."""
    tokens_NL = torch.tensor([[101, 4743, 102, 0], [101, 2417, 4743, 102]])
    return tokens_NL, (tokens_NL > 0).long()
