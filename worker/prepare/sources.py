"""The backbones of a job: prepared before, or prepared now."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from app import abandoned, backbones
from app.backbones import Backbone
from app.errors import JobFailure
from worker.attempt.context import RunContext
from worker.backbones import clip_text, prepared, weights
from worker.backbones.clip_text import ClipText
from worker.backbones.prepared import Prepared

AUTO = "auto"
MAX_CANDIDATES = {"cpu": 3, "cuda": 10}


def open_backbones(context: RunContext) -> tuple[Prepared, ...]:
    """What the job's `backbone` means; for `auto` those at hand, best first by the catalogue's rank.

    Raises:
        JobFailure: weights_unavailable, with the names that can be had.
    """
    name = context.document.backbone or AUTO
    if name != AUTO:
        return (open_backbone(context, name),)
    return tuple(open_backbone(context, one.name) for one in _ranked(context)[: MAX_CANDIDATES[context.device]])


def open_best(context: RunContext) -> Prepared:
    """What the job's `backbone` means where one is enough: for `auto` the best at hand, by the catalogue's rank.

    Raises:
        JobFailure: weights_unavailable, with the names that can be had.
    """
    name = context.document.backbone or AUTO
    return open_backbone(context, _ranked(context)[0].name if name == AUTO else name)


def open_backbone(context: RunContext, name: str) -> Prepared:
    """The prepared backbone of that name; prepares it first when this machine has not seen it.

    Raises:
        JobFailure: weights_unavailable.
    """
    home = context.settings.home_path
    own = next((row for row in context.document.user_backbones if row["backbone"]["name"] == name), None)
    if own is not None:
        return _own(context, own)
    found = prepared.find(name, [home / "backbones", context.settings.prepared])
    if found is not None:
        return found
    backbone = backbones.find(name)
    if backbone is None:
        raise JobFailure("weights_unavailable", f"expected a backbone of the catalogue; found {name!r}")
    return _prepare(context, backbone)


def open_text_tower(context: RunContext, name: str) -> ClipText:
    """The prepared text tower of that backbone; prepares it first when this machine has not seen it.

    Raises:
        JobFailure: weights_unavailable.
    """
    home, reporter = context.settings.home_path, context.reporter
    found = clip_text.find(name, [home / "backbones", context.settings.prepared])
    if found is not None:
        return found
    backbone = backbones.find(name)
    if backbone is None:
        raise JobFailure("weights_unavailable", f"expected a backbone of the catalogue; found {name!r}")
    _check_offline(context, backbone)
    from worker.prepare import text_tower

    reporter.log(f"preparing the text tower of {name}: weights, tokenizer, export, proof; done once")
    return text_tower.prepare(
        backbone,
        home / "backbones",
        home,
        context.settings.offline,
        lambda share, what: reporter.progress(0.05 + 0.5 * share, what),
    )


def _ranked(context: RunContext) -> list[Backbone]:
    """Recommended backbones at hand, best first.

    Raises:
        JobFailure: weights_unavailable, there are none.
    """
    found = [
        one for one in map(backbones.find, weights.available(context.settings.home_path)) if one and one.recommended
    ]
    if not found:
        raise JobFailure("weights_unavailable", "expected a recommended backbone at hand; found none; run `make setup`")
    return sorted(found, key=lambda one: -(one.rank or 0.0))


def _prepare(context: RunContext, backbone: Backbone) -> Prepared:
    """Downloads where needed and exports. Torch is imported only here, and not for weights that cannot be had."""
    home, reporter = context.settings.home_path, context.reporter
    _check_offline(context, backbone)
    from worker.prepare import download

    reporter.log(f"preparing {backbone.name}: weights, export, proof; done once")
    download.fetch(backbone, home, lambda share, what: reporter.progress(0.015 * share, what))
    from worker.prepare.image_tower import prepare

    return prepare(backbone, home / "backbones", home, lambda share, what: reporter.progress(0.05 * share, what))


def _check_offline(context: RunContext, backbone: Backbone) -> None:
    home = context.settings.home_path
    if weights.locate(backbone, home) is None and context.settings.offline:
        raise weights.unavailable(backbone, "downloads are off (GRAFT_OFFLINE)", home)


def _own(context: RunContext, row: dict[str, Any]) -> Prepared:
    """A user's own backbone, from storage into the home folder: whole or not at all, since other jobs read it too."""
    prefix: str = row["prefix"]
    home = context.settings.home_path / "backbones"
    folder = home / prefix.rpartition("/")[2]
    if not folder.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=abandoned.OWN) as name:
            place = Path(name) / folder.name
            place.mkdir()
            for key in context.storage.list(prefix):
                shutil.copyfile(context.storage.fetch(key), place / key.rpartition("/")[2])
            try:
                place.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another job was faster
                    raise
    new = row.get("new", {"tensors": (), "num_params": 0})
    own = {"name": row["backbone"]["name"], "new": tuple(new["tensors"]), "num_new": new["num_params"]}
    return replace(prepared.read(folder), **own)
