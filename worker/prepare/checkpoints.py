"""A user's own checkpoint under a known architecture: opened in a limited child, mapped, refused or prepared."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from app import limited
from app.backbones import Backbone, Weights, check_checkpoint_size
from app.errors import BadRequest
from worker.backbones import mapping, networks, transplant, weights
from worker.backbones.mapping import Mapping
from worker.backbones.prepared import Prepared
from worker.prepare import image_tower
from worker.prepare.download import Progress

MIN_SHARE = 0.9
SECONDS = 300
HEADROOM_BYTES = 512 * 2**20
NUM_SHOWN = 10


class Refused(Exception):
    """A checkpoint that cannot be used.

    Args:
        message: what was expected, what was found, what to do.
        report: the mapping, where it came that far.
    """

    def __init__(self, message: str, report: Mapping | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.report = report


@dataclass(frozen=True, slots=True)
class Admitted:
    """A checkpoint that became a backbone."""

    backbone: Backbone
    prepared: Prepared
    report: Mapping


def admit(
    name: str,
    base: Backbone,
    file: Path,
    destination: Path,
    progress: Progress,
    min_share: float = MIN_SHARE,
    licence: str = "as its owner states",
) -> Admitted:
    """Maps a checkpoint onto a catalogue's architecture and prepares the result.

    Args:
        name: of the new backbone, `user/...`.
        base: catalogue entry whose network the checkpoint fits.
        file: untrusted; torch or safetensors.
        destination: as for `worker.prepare.image_tower`.
        progress: as for `worker.prepare.image_tower`.
        min_share: of the network's elements, classifier left out, that the checkpoint must fill.
        licence: of the weights.

    Raises:
        Refused: too large for the network, not a state dict, too little of it fits, or it is of a deeper network (the
            message lists what does not fit), or the input does not.
    """
    try:
        # Also of a job that an older release has taken on, which did not look.
        check_checkpoint_size(base, file.stat().st_size)
    except BadRequest as error:
        raise Refused(error.detail) from error
    source = open_file(file, scratch=destination.parent)
    network = networks.build(base, None)
    features = networks.feature_module(network, base.provider)
    target = networks.state_of(features)
    names = transplant.manifest(source), transplant.manifest(target)
    # Known other namings of the same networks are tried too; the one that fills most is meant.
    found = [mapping.match(*names), *(mapping.match(*names, rename) for rename in mapping.RENAMES.values())]
    report = max(found, key=lambda one: one.share)
    if report.share < min_share:
        raise Refused(_refusal(base, report, min_share), report)
    if report.share_beyond > 1 - min_share:
        raise Refused(_larger(base, report), report)
    _try_input(features, base)
    inner: nn.Module = features.network  # type: ignore[assignment]
    inner.load_state_dict(transplant.apply(report, source, target), strict=True)
    backbone = replace(
        base,
        name=name,
        provider="user",
        architecture=base.name,
        licence=licence,
        recommended=False,
        rank=None,
        weights=Weights(kind="user", location=name, sha256=weights.sha256_file(file)),
    )
    done = image_tower.write(inner, backbone, backbone.weights.sha256, destination, progress)
    new = tuple(entry.target for entry in report.entries if entry.status == "new" and entry.target)
    sizes = {name: value.numel() for name, value in inner.named_parameters()}
    return Admitted(backbone, replace(done, new=new, num_new=sum(sizes.get(name, 0) for name in new)), report)


def open_file(
    file: Path, memory_bytes: int | None = None, seconds: int = SECONDS, scratch: Path | None = None
) -> dict[str, Tensor]:
    """State dict of an untrusted file, read by a child without environment and with bounded memory and time.

    Args:
        file: torch or safetensors.
        memory_bytes: beside the child's own imports; by default four times the file and some headroom.
        seconds: of processor and of wall time.
        scratch: folder for the child's answer; the system's by default.

    Raises:
        Refused: with the child's words, or how it ended.
        OSError: what was read could not be written; the file is not to blame.
    """
    budget = memory_bytes or 4 * file.stat().st_size + HEADROOM_BYTES
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        result = Path(folder) / "state.safetensors"
        try:
            answer = limited.ask(
                "worker.prepare.checkpoint_child", [str(file.absolute()), str(result)], budget, seconds
            )
        except limited.Ended as error:
            raise Refused(
                f"expected a checkpoint that opens; found that {error}; save the model's state_dict() with torch.save "
                "or safetensors"
            ) from error
        if "error" in answer:
            raise Refused(f"the checkpoint cannot be used: {answer['error']}")
        if "unwritten" in answer:
            raise OSError(f"the tensors of the checkpoint could not be written: {answer['unwritten']}")
        return networks.read_state(result)


def _try_input(features: nn.Module, base: Backbone) -> None:
    """One picture of zeros.

    Raises:
        Refused: the architecture does not take images of that size.
    """
    height, width = base.preprocess.height, base.preprocess.width
    try:
        with torch.inference_mode():
            features.eval()(torch.zeros(1, 3, height, width))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise Refused(
            f"expected an input that {base.architecture} takes; found {height} x {width} pixels: {str(error)[:300]}; "
            "leave `input.height` and `input.width` out, or choose another architecture"
        ) from error


def _refusal(base: Backbone, report: Mapping, min_share: float) -> str:
    missing = [entry.target for entry in report.entries if entry.status == "new"]
    extra = [entry.source for entry in report.entries if entry.status == "skipped"]
    return (
        f"expected a checkpoint that fills at least {min_share:.0%} of {base.name}, this one fills {report.share:.1%}; "
        f"without a value: {_some(missing)}; without a place: {_some(extra)}; "
        "name the architecture that it was trained as"
    )


def _larger(base: Backbone, report: Mapping) -> str:
    return (
        f"expected a checkpoint of {base.name}; found one of a deeper network, with {report.share_beyond:.1%} of it in "
        f"blocks that {base.name} does not have: {_some(report.beyond)}; name the architecture that it was trained as"
    )


def _some(names: Sequence[str | None]) -> str:
    shown = ", ".join(str(name) for name in names[:NUM_SHOWN]) or "none"
    return f"{shown} and {len(names) - NUM_SHOWN} more" if len(names) > NUM_SHOWN else shown
