"""Prepares backbones once, so that every later job and the server share one proven graph.

`python -m worker.prepare --starter` is what `make setup` runs. A prepared backbone is a folder named by its digest,
written beside its place and moved there whole: a reader never sees half of one.
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import onnx
import onnxruntime
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from app import backbones as catalogue
from app.backbones import Backbone
from app.errors import JobFailure
from worker.backbones import export, networks, prepared, text, weights
from worker.backbones.prepared import CLASSIFIER, GRAPH, PREFIX, RECORD, WEIGHTS, Prepared
from worker.backbones.probes import probe_images
from worker.backbones.split import split
from worker.prepare import centre, download
from worker.prepare.download import Progress

LAYER = "pooled"
ABANDONED_SECONDS = 24 * 3600


def default_destination() -> Path:
    """Inside the virtual environment: all homes of one installation share the starters."""
    return Path(sys.prefix) / "share" / "graft" / "backbones"


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


def starters() -> Iterator[Backbone]:
    """The backbones whose weights ship inside packages."""
    return (backbone for backbone in catalogue.catalogue() if backbone.weights.kind == "starter")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.prepare", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="backbones, as GET /backbones lists them")
    parser.add_argument("--starter", action="store_true", help="all whose weights ship inside installed packages")
    parser.add_argument("--destination", type=Path, default=default_destination(), help="default: %(default)s")
    parser.add_argument("--home", type=Path, default=Path(".graft"), help="where downloaded weights are kept")
    return parser.parse_args(arguments)


def _print(share: float, message: str) -> None:
    sys.stdout.write(f"{share:4.0%} {message}\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Command line; 1 when a backbone could not be prepared, after the others were."""
    options = _parse(arguments)
    chosen = list(starters()) if options.starter else []
    failures = 0
    for name in options.names:
        backbone = catalogue.find(name)
        if backbone is None:
            sys.stderr.write(f"expected a backbone of the catalogue, found {name!r}; GET /backbones lists them\n")
            failures += 1
        else:
            chosen.append(backbone)
    for backbone in chosen:
        started = time.monotonic()
        try:
            done = prepare(backbone, options.destination, options.home, _print)
            if backbone.text_tower:
                _prepare_text_tower(backbone, options.destination, options.home)
        except JobFailure as failure:
            sys.stderr.write(f"{failure.code}: {failure.message}\n")
            failures += 1
        else:
            seconds = time.monotonic() - started
            parity = done.record["parity"]["max_rel"]
            sys.stdout.write(f"{done.name}  {seconds:.1f} s  {done.digest[:12]}  parity {parity:.1e}\n")
    if options.starter:
        failures += _prepare_text(options.destination)
    return 1 if failures else 0


def _prepare_text_tower(backbone: Backbone, destination: Path, home: Path) -> None:
    from worker.prepare import text_tower

    done = text_tower.prepare(backbone, destination, home, False, _print)
    sys.stdout.write(f"{done.record['name']}  {done.digest[:12]}  parity {done.record['parity']['max_abs']:.1e}\n")


def _prepare_text(destination: Path) -> int:
    """The text encoder, for zero-shot transfer; 1 when it cannot be had, else 0."""
    from worker.prepare import text_encoder

    try:
        done = text_encoder.prepare(destination, _print)
    except JobFailure as failure:
        sys.stderr.write(f"{failure.code}: {failure.message}\n")
        return 1
    sys.stdout.write(f"{text.NAME}  {done.digest[:12]}  parity {done.record['parity']['max_abs']:.1e}\n")
    return 0
