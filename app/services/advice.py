"""Advice on datasets: asked for, read, and applied as a child dataset."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app import texts
from app.advice import THUMBNAILS, AdviceRequest, ApplyRequest
from app.db.base import new_id
from app.db.models import Dataset
from app.db.studies import Advice
from app.errors import BadRequest, Conflict
from app.services import backbones, datasets, jobs, studies
from app.storage import Storage

TEST = "test"
# A dataset whose class has fewer good images is invalid; see docs/problems.md.
MIN_CLASS = 2


@dataclass(frozen=True, slots=True)
class Changes:
    """What findings together do to a dataset; `by` is the finding that wants it."""

    remove: dict[str, str]
    relabel: dict[str, tuple[str, str]]

    @property
    def labels(self) -> dict[str, str]:
        """New labels by sample."""
        return {sample: label for sample, (label, _) in self.relabel.items()}


def create(session: Session, project: str, dataset_id: str, wish: AdviceRequest, offline: bool) -> Advice:
    """Checks what is asked, and makes the study and its job.

    Raises:
        NotFound: a dataset or the backbone is not there.
        Conflict: a dataset is not ready.
        BadRequest: code same_dataset, or weights that cannot be had.
    """
    if wish.against == dataset_id:
        raise BadRequest(
            f"expected another dataset to compare with; found {dataset_id} against itself; leave `against` out, or "
            "name another",
            code="same_dataset",
        )
    backbones.check_usable(session, project, wish.backbone, offline)
    for one in filter(None, (dataset_id, wish.against)):
        jobs.keep_dataset(session, one)
        datasets.ready(session, project, one)
    job = jobs.NewJob(
        kind="advise",
        dataset_id=dataset_id,
        backbone=wish.backbone,
        seed=wish.seed,
        datasets={"against": wish.against} if wish.against else {},
    )
    return studies.create(session, Advice, project, {"dataset": dataset_id, **wish.model_dump(mode="json")}, job)


def page(
    session: Session, project: str, limit: int, after: str | None, dataset_id: str | None = None
) -> tuple[Sequence[Advice], bool]:
    """Advice, newest first, on all datasets or on one, which may be deleted; and whether there is more."""
    conditions = [Advice.request["dataset"].as_string() == dataset_id] if dataset_id else []
    return studies.page(session, Advice, project, limit, after, *conditions)


def apply(session: Session, project: str, advice_id: str, wish: ApplyRequest) -> Dataset:
    """Makes a child dataset with the suggestions of findings carried out; its samples stay in their splits.

    Raises:
        NotFound: no such advice, or its dataset was deleted.
        Conflict: code study_not_ready, or findings_contradict, with the pairs.
        BadRequest: code unknown_finding, nothing_to_apply, or too_little_left.
    """
    row = studies.ready(session, Advice, project, advice_id)
    result = row.result or {}
    chosen = _chosen(result, wish, advice_id)
    changes = _changes(chosen)
    base_id = row.request["dataset"]
    jobs.keep_dataset(session, base_id)
    base = datasets.ready(session, project, base_id)
    _check_enough(base, changes, result["samples"])
    new = datasets.NewDataset(
        name=wish.name or base.name,
        archive=None,
        filename="",
        base_id=base_id,
        remove=tuple(changes.remove),
        relabel=changes.labels,
    )
    return datasets.create(session, project, new_id("ds"), new)


def thumbnails(storage: Storage, row: Advice) -> dict[str, bytes]:
    """Small JPEGs by sample, behind AGAINST those of the other dataset; none while the advice is being made."""
    if row.state != studies.READY:
        return {}
    from zipfile import ZipFile

    with ZipFile(storage.fetch(f"{studies.prefix(row.project_id, row.id)}/{THUMBNAILS}")) as archive:
        return {name.removesuffix(".jpg"): archive.read(name) for name in archive.namelist()}


def _chosen(result: dict[str, Any], wish: ApplyRequest, advice_id: str) -> list[dict[str, Any]]:
    """Findings that were named, or all of the kinds that leave the test split alone.

    Raises:
        BadRequest: code unknown_finding, or nothing_to_apply.
    """
    findings: list[dict[str, Any]] = result["findings"]
    if wish.findings is not None:
        known = {one["id"]: one for one in findings}
        unknown = [name for name in dict.fromkeys(wish.findings) if name not in known]
        if unknown:
            raise BadRequest(
                f"expected findings of {advice_id}; found {texts.few(unknown)}; GET "
                f"/api/v1/advice/{advice_id} lists them",
                code="unknown_finding",
                unknown=unknown[:100],
            )
        chosen = [known[name] for name in dict.fromkeys(wish.findings)]
        idle = [one["id"] for one in chosen if one["suggestion"]["action"] == "look"]
        if idle:
            raise BadRequest(
                f"expected findings with something to remove or relabel; found {texts.few(idle)}, which only ask for a "
                "look; leave them out, or POST /api/v1/datasets with `base`, `remove` and `relabel` of your own",
                code="nothing_to_apply",
            )
        return chosen
    samples, kinds = result["samples"], wish.kinds or ()
    fitting = [one for one in findings if one["kind"] in kinds and one["suggestion"]["action"] != "look"]
    chosen = [one for one in fitting if all(samples[name]["split"] != TEST for name in one["suggestion"]["samples"])]
    if not chosen:
        found = f"{len(fitting)} that would change the test split" if fitting else "none"
        raise BadRequest(
            f"expected findings of {', '.join(kinds)} to apply outside the test split; found {found}; name `findings` "
            "by their ids after a look at them",
            code="nothing_to_apply",
        )
    return chosen


def _changes(findings: Iterable[dict[str, Any]]) -> Changes:
    """What the findings do together.

    Raises:
        Conflict: code findings_contradict, a sample would be removed and relabelled, or get two labels.
    """
    changes, pairs = Changes({}, {}), []
    for one in findings:
        suggestion = one["suggestion"]
        for sample in suggestion["samples"]:
            if suggestion["action"] == "remove":
                changes.remove.setdefault(sample, one["id"])
                continue
            before = changes.relabel.setdefault(sample, (suggestion["label"], one["id"]))
            if before[0] != suggestion["label"]:
                pairs.append((before[1], one["id"], sample))
    pairs += [
        (changes.remove[sample], by, sample) for sample, (_, by) in changes.relabel.items() if sample in changes.remove
    ]
    if pairs:
        first, second, sample = pairs[0]
        raise Conflict(
            f"expected findings that agree on each sample; found {len(pairs)} that do not, such as {first} and "
            f"{second} on {sample}; send the findings' ids, with one of each pair",
            code="findings_contradict",
            pairs=[{"findings": [one, other], "sample": name} for one, other, name in pairs[:100]],
        )
    return changes


def _check_enough(base: Dataset, changes: Changes, samples: dict[str, dict[str, Any]]) -> None:
    """Refuses a child that its ingestion would refuse.

    Raises:
        BadRequest: code too_little_left.
    """
    if len(changes.remove) >= base.num_samples:
        raise BadRequest(
            "expected images to stay; found all of them removed; apply fewer findings", code="too_little_left"
        )
    counts = Counter({one["name"]: one["num_samples"] for one in base.classes})
    if not counts or base.task != "classification":
        return
    for sample in changes.remove:
        if samples[sample]["label"] is not None:
            counts[samples[sample]["label"]] -= 1
    for sample, label in changes.labels.items():
        counts[samples[sample]["label"]] -= 1
        counts[label] += 1
    left = {name: count for name, count in counts.items() if count > 0}
    small = [name for name, count in left.items() if count < MIN_CLASS]
    if len(left) < 2 or small:
        found = f"one image left in {texts.few(small)}" if small else f"{len(left)} class left"
        raise BadRequest(
            f"expected two classes or more to stay, each with {MIN_CLASS} images or none; found {found}; apply fewer "
            "findings",
            code="too_little_left",
        )
