"""The text network against numpy, one step after the other, and the prepared encoder against the network."""

import numpy as np
import torch
from scipy.special import erf

from app.settings import Settings
from worker.backbones import text, weights
from worker.prepare import text_encoder, text_network


def dense(layer: torch.nn.Linear, values: np.ndarray) -> np.ndarray:
    return values @ layer.weight.numpy().T + layer.bias.numpy()


def normed(layer: torch.nn.LayerNorm, values: np.ndarray) -> np.ndarray:
    out = np.empty_like(values)
    for place, row in enumerate(values):
        out[place] = (row - row.mean()) / np.sqrt(row.var() + 1e-12) * layer.weight.numpy() + layer.bias.numpy()
    return out


def slow_layer(layer: text_network.Layer, states: np.ndarray) -> np.ndarray:
    """One text without padding: head by head, token by token."""
    query, key, value = (dense(part, states) for part in (layer.query, layer.key, layer.value))
    seen = np.zeros_like(states)
    for head in range(12):
        part = slice(32 * head, 32 * (head + 1))
        for token in range(len(states)):
            scores = np.array([query[token, part] @ key[other, part] / np.sqrt(32) for other in range(len(states))])
            shares = np.exp(scores) / np.exp(scores).sum()
            seen[token, part] = sum(share * value[other, part] for other, share in enumerate(shares))
    mixed = normed(layer.mixed_norm, dense(layer.mixed, seen) + states)
    inner = dense(layer.inner, mixed)
    inner = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
    return normed(layer.outer_norm, dense(layer.outer, inner) + mixed)


def test_a_layer_is_attention_then_two_dense_layers() -> None:
    torch.manual_seed(0)
    layer = text_network.Layer().requires_grad_(False)
    states = torch.randn(1, 5, 384)
    found = layer(states, torch.zeros(1, 1, 1, 5))[0].numpy()
    np.testing.assert_allclose(found, slow_layer(layer, states[0].double().numpy()), atol=1e-5)


def test_the_prepared_graph_is_the_network_with_the_packages_weights() -> None:
    path = weights.package_file(f"{text_encoder.MODEL}/model.safetensors")
    assert path is not None
    network = text_network.load(path)
    encoder = text.find([Settings().prepared])
    texts = ["a snow leopard", "tea"]
    tokens, mask = text.tokenise(text.open_tokenizer(encoder.folder / text.TOKENIZER), texts)
    wanted = network(torch.from_numpy(tokens), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(encoder.encode(texts), wanted, atol=text_encoder.TOLERANCE)


def test_what_is_prepared_is_not_prepared_again() -> None:
    said: list[str] = []
    found = text_encoder.prepare(Settings().prepared, lambda share, message: said.append(message))
    assert said == [f"{text.NAME}: already prepared"]
    assert found.record["licence"] == "Apache-2.0"
    assert found.record["parity"]["max_abs"] <= text_encoder.TOLERANCE
