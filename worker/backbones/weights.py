"""Finds a backbone's weights on this machine. No torch; `worker.prepare.download` fetches what is not here."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from app.backbones import Backbone, catalogue
from app.errors import JobFailure

# Older repositories of open_clip have the second name only; open_clip, too, asks for the first and then for the second.
ALTERNATIVES = {"open_clip_model.safetensors": "open_clip_pytorch_model.bin"}


def sha256_file(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def locate(backbone: Backbone, home: Path) -> Path | None:
    """The weights' file, when it is on this machine: inside an installed package, or downloaded before.

    Args:
        backbone: catalogue entry.
        home: GRAFT_HOME; downloads live in `weights/` below it.
    """
    if backbone.weights.kind == "starter":
        return package_file(backbone.weights.file)
    paths = (download_path(one, home) for one in choices(backbone))
    return next((path for path in paths if path.is_file()), None)


def choices(backbone: Backbone) -> Iterator[Backbone]:
    """The backbone, then the same with another file of its repository, where the first may not be there."""
    yield backbone
    if backbone.weights.file in ALTERNATIVES:
        yield replace(backbone, weights=replace(backbone.weights, file=ALTERNATIVES[backbone.weights.file]))


def download_path(backbone: Backbone, home: Path) -> Path:
    """Where a download of this backbone ends up. The suffix tells the reader the format."""
    return _downloads(home) / _place(backbone)


def available(home: Path) -> list[str]:
    """Names of the backbones whose weights are on this machine, recommended first.

    What is there is listed, not looked for by each name: a worker asks every few seconds, and the catalogue has over a
    thousand.
    """
    folder = _downloads(home)
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = {_names().get(path) for path in paths}
    return [
        backbone.name
        for backbone in catalogue()
        if (locate(backbone, home) is not None if backbone.weights.kind == "starter" else backbone.name in names)
    ]


def _downloads(home: Path) -> Path:
    return home / "weights"


@cache
def _names() -> dict[str, str]:
    """Of the catalogue's backbones, by where below `weights/` a download may be."""
    return {_place(one): backbone.name for backbone in catalogue() for one in choices(backbone)}


def _place(backbone: Backbone) -> str:
    source = backbone.weights.file or backbone.weights.location.rpartition("/")[2]
    return f"{backbone.provider}/{backbone.name.partition('/')[2]}{Path(source).suffix or '.bin'}"


def unavailable(backbone: Backbone, reason: str, home: Path) -> JobFailure:
    """The failure that names what could not be had, why, and what can be used instead."""
    names = available(home)
    instead = f"available here: {', '.join(names)}" if names else "none is available here; run `make setup`"
    return JobFailure("weights_unavailable", f"the weights of {backbone.name} could not be had: {reason}. {instead}")


def package_file(file: str) -> Path | None:
    """A file of an installed package, found without importing the package: its code is not wanted here."""
    package, _, rest = file.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / rest
    return path if path.is_file() else None
