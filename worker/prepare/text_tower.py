"""Prepares the text tower of an open_clip model once, as `image_tower` does the image tower: torch writes the graph.

The tokenizer goes beside it as a `tokenizers` file. CLIP's own is converted from what open_clip ships; a model with
another one (SigLIP) names a repository of the hub, whose file is downloaded like weights.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch.export import Dim

from app.backbones import Backbone, Weights
from app.errors import JobFailure
from worker.backbones import clip_network, clip_text, export, prepared, weights
from worker.backbones.clip_network import TextTower
from worker.backbones.clip_text import GRAPH, TOKENIZER, TOKENS, VECTORS, ClipText, TokenRules
from worker.backbones.prepared import RECORD
from worker.prepare import download
from worker.prepare.download import Progress

# Vectors of length 1.
TOLERANCE = 1e-4
PROBES = (
    "birds",
    "a",
    "a photo of a road sign: a sign beside a street that tells drivers what to do.",
    "Great White Shark, man-eater's  caf\u00e9 &amp; 12 \u2603",
    "word " * 400,
)
# Pads that fast tokenizers have where their configuration names none.
USUAL_PADS = ("[PAD]", "<pad>")


def prepare(backbone: Backbone, destination: Path, home: Path, offline: bool, progress: Progress) -> ClipText:
    """Exports, proves and writes the text tower of a backbone; one that is there and intact is only read.

    Raises:
        JobFailure: weights_unavailable, weights or tokenizer are neither here nor to be downloaded; internal, the graph
            or the tokenizer does not do what open_clip does.
    """
    there = clip_text.find(backbone.name, [destination])
    if there is not None and prepared.intact(there.folder):
        progress(1.0, f"{backbone.name}: text tower already prepared")
        return there
    fetch = _fetcher(backbone, home, offline, progress)
    model_config = clip_network.config(backbone.architecture, backbone.tag)
    content, rules = tokenizer_of(model_config["text_cfg"], fetch)
    file = download.fetch(backbone, home, progress)
    progress(0.3, f"{backbone.name}: build")
    model = clip_network.build(backbone.architecture, backbone.tag, file)
    return write(model, backbone, content, rules, destination, progress)


def write(
    model: torch.nn.Module, backbone: Backbone, tokenizer: str, rules: TokenRules, destination: Path, progress: Progress
) -> ClipText:
    """Exports and stores the text tower of a model that is already built."""
    tower = TextTower(model).eval()
    digest = digest_of(model, backbone.architecture, tokenizer, rules)
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination, prefix=prepared.DRAFT) as name:
        folder = Path(name) / digest
        folder.mkdir()
        (folder / TOKENIZER).write_text(tokenizer)
        progress(0.4, f"{backbone.name}: export of the text tower")
        tokens_NL = clip_text.tokenise(clip_text.open_tokenizer(folder / TOKENIZER), rules, PROBES)
        _export(tower, tokens_NL, folder / GRAPH)
        worst, dim = _prove(tower, tokens_NL, folder / GRAPH)
        record: dict[str, Any] = {
            "name": clip_text.pointer_name(backbone.name),
            "architecture": backbone.architecture,
            "digest": digest,
            "dim": dim,
            "licence": backbone.licence,
            "logit_scale": clip_network.logit_scale(model),
            "tokens": asdict(rules),
            "parity": {"max_abs": worst, "num_texts": len(PROBES)},
            "versions": _versions(),
        }
        record["files"] = {path.name: weights.sha256_file(path) for path in sorted(folder.iterdir())}
        (folder / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True))
        prepared.move(folder, destination / digest)
    prepared.point(clip_text.pointer_name(backbone.name), digest, destination)
    progress(1.0, f"{backbone.name}: text tower prepared")
    found = clip_text.find(backbone.name, [destination])
    assert found is not None
    return found


def digest_of(model: torch.nn.Module, architecture: str, tokenizer: str, rules: TokenRules) -> str:
    """sha256 over what decides a vector."""
    total = hashlib.sha256()
    for name, tensor in sorted(clip_network.text_state(model).items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    total.update(f"{architecture} {json.dumps(asdict(rules))}\n{tokenizer}".encode())
    return total.hexdigest()


def tokenizer_of(text_config: dict[str, Any], fetch: Callable[[str, str], Path]) -> tuple[str, TokenRules]:
    """Content of the tokenizer file of a model, and the rules around it.

    Args:
        text_config: of open_clip.
        fetch: (hub repository, file) -> path.
    """
    repository: str = text_config.get("hf_tokenizer_name") or ""
    length = text_config.get("context_length", 77)
    if not repository:
        return _own_tokenizer(length)
    file, settings = fetch(repository, "tokenizer.json"), fetch(repository, "tokenizer_config.json")
    options = text_config.get("tokenizer_kwargs") or {}
    return hub_tokenizer(file, json.loads(settings.read_text()), options, length)


def hub_tokenizer(file: Path, settings: dict[str, Any], options: dict[str, Any], length: int) -> tuple[str, TokenRules]:
    """A tokenizer file of the hub, with the rules that open_clip's wrapper would apply.

    Args:
        file: tokenizer.json.
        settings: tokenizer_config.json.
        options: what open_clip's configuration adds: `clean`, `strip_sep_token`.
        length: of the model's context.

    Raises:
        JobFailure: weights_unavailable, the files do not say what to pad with.
    """
    tokenizer = clip_text.open_tokenizer(file)
    named = _token(settings, "pad_token")
    pads = [tokenizer.token_to_id(one) for one in (named, *USUAL_PADS) if one]
    pad = next((one for one in pads if one is not None), None)
    if pad is None:
        raise JobFailure(
            "weights_unavailable", f"expected a pad_token in tokenizer_config.json beside {file.name}; found none"
        )
    dropped = None
    if options.get("strip_sep_token"):
        dropped = tokenizer.token_to_id(_token(settings, "sep_token") or "[SEP]")
    left = settings.get("padding_side") == "left"
    clean = options.get("clean", "whitespace")
    return file.read_text(), TokenRules(clean, length, None, None, pad, left, dropped)


def _token(settings: dict[str, Any], name: str) -> str | None:
    """A special token, which such files write as text or as an object."""
    found = settings.get(name)
    return found["content"] if isinstance(found, dict) else found


def _own_tokenizer(length: int) -> tuple[str, TokenRules]:
    """CLIP's byte-pair encoding, as open_clip ships it, in the form of a `tokenizers` file; proven on PROBES.

    Raises:
        JobFailure: internal, the two disagree.
    """
    from open_clip.tokenizer import SimpleTokenizer
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

    theirs = SimpleTokenizer(context_length=length)
    merges = [pair for pair, _ in sorted(theirs.bpe_ranks.items(), key=lambda item: item[1])]
    ours = Tokenizer(models.BPE(vocab=dict(theirs.encoder), merges=merges, end_of_word_suffix="</w>"))
    ours.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    ours.add_special_tokens([AddedToken(theirs.decoder[number], normalized=False) for number in theirs.all_special_ids])
    rules = TokenRules("lower", length, theirs.sot_token_id, theirs.eot_token_id, 0)
    if not np.array_equal(clip_text.tokenise(ours, rules, PROBES), theirs(list(PROBES)).numpy()):
        raise JobFailure("internal", "expected the converted tokenizer to agree with open_clip's; found other tokens")
    return ours.to_str(), rules


# What CLIP's tokenizer takes for one word; its special tokens are known to the file.
PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def _export(tower: TextTower, tokens_NL: NDArray[np.int64], path: Path) -> None:
    export.write(tower, (torch.from_numpy(tokens_NL),), ({0: Dim("texts")},), [TOKENS], VECTORS, path)


def _prove(tower: TextTower, tokens_NL: NDArray[np.int64], path: Path) -> tuple[float, int]:
    """Largest difference between graph and torch, alone and together, and the vectors' width."""
    session = export.open_session(path)
    worst, dim = 0.0, 0
    for batch in (tokens_NL, tokens_NL[:1], tokens_NL[1:3]):
        with torch.no_grad():
            wanted: NDArray[np.float32] = tower(torch.from_numpy(batch)).numpy()
        got = session.run(None, {TOKENS: batch})[0]
        worst, dim = max(worst, float(np.abs(got - wanted).max())), wanted.shape[1]
    if not worst <= TOLERANCE:
        raise JobFailure("internal", f"expected the text graph within {TOLERANCE} of torch; found {worst:.3g}")
    return worst, dim


def _fetcher(backbone: Backbone, home: Path, offline: bool, progress: Progress) -> Callable[[str, str], Path]:
    """Downloads a file of a hub repository into the home, unless it is there."""

    def fetch(repository: str, file: str) -> Path:
        path = home / "weights" / backbone.provider / "tokenizers" / repository.replace("/", "--") / file
        if path.is_file():
            return path
        try:
            if offline:
                raise download.Refused("downloads are off (GRAFT_OFFLINE)")
            source = download.resolve(replace(backbone, weights=Weights("hub", repository, file)))
            download.download(source, path, lambda share, text: progress(0.1 * share, f"{repository}/{file}: {text}"))
        except download.Refused as error:
            raise weights.unavailable(backbone, f"{file} of {repository}: {error}", home) from error
        return path

    return fetch


def _versions() -> dict[str, str]:
    import open_clip

    return {"torch": torch.__version__, "open_clip": open_clip.__version__, "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__}  # fmt: skip
