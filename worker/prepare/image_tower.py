"""Prepares backbones once, so that every later job and the server share one proven graph.

A prepared backbone is a folder named by its digest, written beside its place and moved there whole: a reader never sees
half of one.
"""

import hashlib
import json
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import onnx
import onnxruntime
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from app.backbones import Backbone
from worker.backbones import export, networks, prepared, weights
from worker.backbones.prepared import CLASSIFIER, GRAPH, PREFIX, RECORD, WEIGHTS, Prepared
from worker.backbones.probes import probe_images
from worker.backbones.split import split
from worker.prepare import centre, download
from worker.prepare.download import Progress

LAYER = "pooled"
ABANDONED_SECONDS = 24 * 3600


def prepare(backbone: Backbone, destination: Path, home: Path, progress: Progress) -> Prepared:
    """Builds, exports, proves and writes one backbone; what is there and intact is only read.

    Raises:
        JobFailure: `weights_unavailable`, when the weights are neither here nor to be downloaded; `internal`, when the
            exported graph does not do what torch does.
    """
    there = prepared.find(backbone.name, [destination])
    if there is not None and prepared.intact(there.folder):
        progress(1.0, f"{backbone.name}: already prepared")
        return _centred(there)
    progress(0.0, f"{backbone.name}: weights")
    file = download.fetch(backbone, home, lambda share, message: progress(0.3 * share, message))
    progress(0.3, f"{backbone.name}: build")
    network = networks.build(backbone, file)
    return _centred(write(network, backbone, weights.sha256_file(file), destination, progress))


def _centred(backbone: Prepared) -> Prepared:
    """With a mean feature, where text can be mapped to the classifier's rows and the pictures came along.

    An installation without the repository's examples has no pictures; its zero-shot jobs then need a dataset's mean.
    """
    return centre.add(backbone) if backbone.classifier is not None and centre.PICTURES.is_file() else backbone


def write(
    network: nn.Module, backbone: Backbone, weights_sha256: str, destination: Path, progress: Progress
) -> Prepared:
    """Exports and stores a network that is already built, under the digest of what it computes."""
    rows = networks.classifier_rows(network, backbone.provider)
    features = networks.feature_module(network, backbone.provider)
    state = networks.state_of(features)
    digest = digest_of(state, backbone)
    destination.mkdir(parents=True, exist_ok=True)
    _sweep(destination)
    with tempfile.TemporaryDirectory(dir=destination, prefix=prepared.DRAFT) as name:
        folder = Path(name) / digest
        folder.mkdir()
        save_file(state, folder / WEIGHTS)
        if rows is not None:
            save_file(_classifier(*rows), folder / CLASSIFIER)
        record = _export(features, backbone, folder, progress)
        for path in folder.iterdir():
            path.chmod(0o644)  # safetensors writes for its owner alone; workers may run as somebody else
        record |= {"digest": digest, "weights_sha256": weights_sha256}
        record["files"] = {path.name: weights.sha256_file(path) for path in sorted(folder.iterdir())}
        (folder / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True))
        prepared.move(folder, destination / digest)
    prepared.point(backbone.name, digest, destination)
    progress(1.0, f"{backbone.name}: prepared")
    return prepared.read(destination / digest)


def digest_of(state: dict[str, Tensor], backbone: Backbone) -> str:
    """sha256 over what decides a feature: every tensor by name, architecture, preprocessing, layer."""
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    total.update(f"{backbone.provider}/{backbone.architecture} {backbone.preprocess.digest} {LAYER}".encode())
    return total.hexdigest()


def _export(features: nn.Module, backbone: Backbone, folder: Path, progress: Progress) -> dict[str, object]:
    """Writes the graphs into `folder` and returns the record without digests.

    With a split, prefix and suffix are exported and joined, which costs about what the whole would.
    """
    shape = backbone.preprocess
    progress(0.35, f"{backbone.name}: split")
    cut = split(features, shape.height, shape.width)
    progress(0.4, f"{backbone.name}: export")
    if cut is None:
        parity = export.export_backbone(features, shape, folder / GRAPH)
    else:
        suffix = folder.parent / "suffix.onnx"
        export.export_prefix(cut.prefix, shape, folder / PREFIX)
        progress(0.8, f"{backbone.name}: export of the last stage")
        export.export_suffix(cut.suffix, cut.activation_shape, suffix)
        export.join(folder / PREFIX, suffix, folder / GRAPH)
        parity = export.prove(export.FromPixels(features, shape), folder / GRAPH, probe_images(shape))
    feature_dim = _width(folder / GRAPH)
    return {
        "name": backbone.name,
        "architecture": backbone.architecture,
        "feature_dim": feature_dim,
        "split": cut.name if cut else "",
        "activation_shape": list(cut.activation_shape) if cut else None,
        "num_params": sum(parameter.numel() for parameter in features.parameters()),
        "licence": backbone.licence,
        "layer": LAYER,
        "preprocess": asdict(shape),
        "parity": asdict(parity),
        "versions": {
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": timm.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }


def _width(graph: Path) -> int:
    return int(export.open_session(graph).get_outputs()[0].shape[1])


def _classifier(weight_CD: Tensor, bias_C: Tensor | None) -> dict[str, Tensor]:
    rows = {"weight": weight_CD.contiguous()}
    return rows if bias_C is None else rows | {"bias": bias_C.contiguous()}


def _sweep(destination: Path) -> None:
    """Removes what processes that were killed left half-written."""
    for left in destination.glob(f"{prepared.DRAFT}*"):
        if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
