"""Prepares backbones ahead of the first job that needs them: `python -m worker.prepare`.

`--starter` is what `make setup` runs.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from app import backbones as catalogue
from app.backbones import Backbone
from app.errors import JobFailure
from worker.backbones import text
from worker.prepare import image_tower, text_encoder, text_tower


def default_destination() -> Path:
    """Inside the virtual environment: all homes of one installation share the starters."""
    return Path(sys.prefix) / "share" / "graft" / "backbones"


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
            done = image_tower.prepare(backbone, options.destination, options.home, _print)
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
    done = text_tower.prepare(backbone, destination, home, False, _print)
    sys.stdout.write(f"{done.record['name']}  {done.digest[:12]}  parity {done.record['parity']['max_abs']:.1e}\n")


def _prepare_text(destination: Path) -> int:
    """The text encoder, for zero-shot transfer; 1 when it cannot be had, else 0."""
    try:
        done = text_encoder.prepare(destination, _print)
    except JobFailure as failure:
        sys.stderr.write(f"{failure.code}: {failure.message}\n")
        return 1
    sys.stdout.write(f"{text.NAME}  {done.digest[:12]}  parity {done.record['parity']['max_abs']:.1e}\n")
    return 0
