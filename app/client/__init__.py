"""A small typed client for the HTTP interface. It stands alone: it imports nothing else of Graft, only httpx.

Usage::

    with Client("http://127.0.0.1:8000") as graft:
        dataset = graft.wait_dataset(graft.upload_dataset(Path("data.zip"), "pets")["id"])
        job = graft.wait_job(graft.start_transfer(dataset["id"], "pets")["id"], on_progress=print)
        answer = graft.predict("pets", [Path("cat.jpg")])
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from app.client.predicting import Predicting
from app.client.uploading import Uploading
from app.client.watching import Event, Progress, Watching, parse_stream
from app.client.wire import ApiError, Json

__all__ = ["ApiError", "Client", "Event", "Json", "Progress", "parse_stream"]


class Client(Watching, Uploading, Predicting):
    """What the service can be asked, noun by noun; `call` does the rest."""

    def missing(self) -> list[str]:
        """What keeps the service from being ready; nothing when it is."""
        found: list[str] = self._http.get("/readyz").json()["missing"]
        return found

    def upload_dataset(self, archive: Path, name: str, **fields: str | int) -> Json:
        """Streams an archive as a new dataset; `fields` are the form's others: task, format, seed, base.

        One of `large_bytes` or more goes as an upload, which outlasts broken connections.
        """
        if archive.stat().st_size >= self.large_bytes:
            return self.dataset_of_upload(self.upload(archive)["id"], name, **fields)
        form = {"name": name, **{key: str(value) for key, value in fields.items()}}
        with archive.open("rb") as file:
            return self.call("POST", "/datasets", files={"file": (archive.name, file)}, data=form)

    def dataset(self, dataset_id: str) -> Json:
        """One dataset."""
        return self.call("GET", f"/datasets/{quote(dataset_id, safe='')}")

    def wait_dataset(self, dataset_id: str, on_progress: Callable[[Progress], None] | None = None) -> Json:
        """The dataset once its ingestion has ended: `ready`, or `invalid` with its failure."""
        found = self.dataset(dataset_id)
        if found["state"] == "ingesting":
            self.wait_job(found["job_id"], on_progress)
            found = self.dataset(dataset_id)
        return found

    def problems(self, dataset_id: str) -> Iterator[Json]:
        """Every finding in a dataset, page by page."""
        after = 0
        while True:
            path = f"/datasets/{quote(dataset_id, safe='')}/problems"
            page = self.call("GET", path, params={"after": after, "limit": 1000})
            yield from page["data"]
            if not page["has_more"]:
                return
            after = page["data"][-1]["seq"]

    def start_transfer(
        self,
        dataset_id: str | None,
        model: str,
        *,
        backbone: str = "auto",
        recipe: Json | None = None,
        seed: int = 0,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Json:
        """Queues a transfer that publishes to `model`; `fields` are the body's others: report, depends_on, ...

        Only recipes that tell their classes (zero_shot) work without a dataset. A recipe names further datasets itself:
        `{"method": "auto", "source": other["id"]}`.
        """
        body = {
            "kind": "transfer",
            "dataset": dataset_id,
            "backbone": backbone,
            "recipe": recipe or {"method": "auto"},
            "model": model,
            "seed": seed,
            **fields,
        }
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self.call("POST", "/jobs", json=body, headers=headers)

    def fit_alignment(self, method: str, source: str, backbone: str, **fields: Any) -> Json:
        """Queues the fit of an alignment; `fields` are the body's others: target, from_backbone, shrinkage, ..."""
        body = {"method": method, "source": source, "backbone": backbone, **fields}
        return self.call("POST", "/alignments", json=body)

    def wait_alignment(self, alignment_id: str, on_progress: Callable[[Progress], None] | None = None) -> Json:
        """The alignment once its fit has ended: `ready`, or `failed` with its failure."""
        return self.wait("/alignments", alignment_id, on_progress)

    def rank_backbones(
        self,
        dataset_id: str,
        backbones: Sequence[str] | None = None,
        *,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Json:
        """Queues a ranking; by default of all recommended backbones at hand. `fields`: max_minutes, seed."""
        names = "auto" if backbones is None else list(backbones)
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        body = {"dataset": dataset_id, "backbones": names, **fields}
        return self.call("POST", "/rankings", json=body, headers=headers)

    def wait_ranking(self, ranking_id: str, on_progress: Callable[[Progress], None] | None = None) -> Json:
        """The ranking once its job has ended: `ready` with its result, or `failed` with its failure."""
        return self.wait("/rankings", ranking_id, on_progress)

    def advise(self, dataset_id: str, *, backbone: str = "auto", **fields: Any) -> Json:
        """Asks what may be wrong with a dataset; `fields` are the body's others: against, seed."""
        path = f"/datasets/{quote(dataset_id, safe='')}/advice"
        return self.call("POST", path, json={"backbone": backbone, **fields})

    def wait_advice(self, advice_id: str, on_progress: Callable[[Progress], None] | None = None) -> Json:
        """The advice once its job has ended: `ready` with `result.findings`, or `failed` with its failure."""
        return self.wait("/advice", advice_id, on_progress)

    def apply_advice(
        self,
        advice_id: str,
        *,
        findings: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        name: str | None = None,
    ) -> Json:
        """Makes a child dataset of suggestions, by the ids of findings or by kind; wait for it with `wait_dataset`."""
        given = {"findings": findings and list(findings), "kinds": kinds and list(kinds), "name": name}
        body = {key: value for key, value in given.items() if value is not None}
        return self.call("POST", f"/advice/{quote(advice_id, safe='')}/apply", json=body)

    def bind_domain(self, model: str, domain: str, alignment_id: str) -> Json:
        """Puts an alignment before the model's head for `predict(..., domain=...)`."""
        path = f"/models/{quote(model, safe='')}/domains/{quote(domain, safe='')}"
        return self.call("PUT", path, json={"alignment": alignment_id})

    def evaluate(self, dataset_id: str, *, idempotency_key: str | None = None, **fields: Any) -> Json:
        """Queues an evaluation; `fields` are the body's others.

        Of a version: model, version or alias, against, split, domain, seed. Of a recipe: mode="folds", recipe,
        backbone, folds, repeats, against, seed.
        """
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self.call("POST", "/evaluations", json={"dataset": dataset_id, **fields}, headers=headers)

    def reproduce(self, job_id: str, *, idempotency_key: str | None = None) -> Json:
        """Queues the evaluation that carries a finished transfer out again and says whether the same came out."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self.call("POST", f"/jobs/{quote(job_id, safe='')}/reproduce", headers=headers)

    def wait_evaluation(self, evaluation_id: str, on_progress: Callable[[Progress], None] | None = None) -> Json:
        """The evaluation once its job has ended: `ready` with its result, or `failed` with its failure."""
        return self.wait("/evaluations", evaluation_id, on_progress)

    def lineage(self, model: str, version: int) -> Json:
        """What a version comes from, and which of its test items that had met before."""
        return self.call("GET", f"/models/{quote(model, safe='')}/versions/{version}/lineage")

    def adopt_backbone(self, name: str, model: str, version: int) -> Json:
        """Makes backbone `user/NAME` of the network that a version's job has trained; its job is in `job_id`."""
        return self.call("POST", "/backbones", json={"name": name, "model": model, "version": version})

    def model(self, name: str) -> Json:
        """One model with its versions."""
        return self.call("GET", f"/models/{quote(name, safe='')}")

    def extract_dataset(self, dataset_id: str, backbone: str, **fields: Any) -> Json:
        """Queues features of all images of a stored dataset; `wait_job`, then `download_features`.

        `fields`: splits, format, priority.
        """
        body = {"kind": "extract", "dataset": dataset_id, "backbone": backbone, **fields}
        return self.call("POST", "/jobs", json=body)

    def download_features(self, job_id: str, target: Path) -> Path:
        """The file of a job of kind extract; its path."""
        return self.download(f"/jobs/{quote(job_id, safe='')}/features", target)

    def download_bundle(self, model: str, version: int, target: Path) -> None:
        """Streams a whole version into a zip, which `import_bundle` of another service takes."""
        self.save(f"/models/{quote(model, safe='')}/versions/{version}/bundle", target)

    def import_bundle(
        self, model: str, bundle: Path, *, allow_label_change: bool = False, idempotency_key: str | None = None
    ) -> Json:
        """Makes a bundle from elsewhere the next version of a model; the answer says what of it was checked."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        form = {"allow_label_change": str(allow_label_change).lower()}
        path = f"/models/{quote(model, safe='')}/versions"
        with bundle.open("rb") as file:
            # The graphs are loaded and run before the answer, which takes minutes for the largest.
            arguments = {"files": {"file": (bundle.name, file)}, "data": form, "headers": headers, "timeout": None}
            return self.call("POST", path, **arguments)

    def drift(self, model: str, **query: str | int) -> Json:
        """Whether what a version is asked looks like what it was tested on; `query`: version, alias, domain, window."""
        return self.call("GET", f"/models/{quote(model, safe='')}/drift", params=query)

    def set_log(self, model: str, share: float, **fields: int | bool) -> Json:
        """Keeps a share of the model's predictions; `fields`: keep_days, images."""
        return self.call("PUT", f"/models/{quote(model, safe='')}/log", json={"share": share, **fields})

    def log(self, model: str) -> Json:
        """What the model's log keeps, and of which days."""
        return self.call("GET", f"/models/{quote(model, safe='')}/log")

    def logged(self, model: str, day: str) -> Iterator[Json]:
        """The predictions of a day (UTC, `2026-11-26`) that were written down, one for each image."""
        yield from self.lines("GET", f"/models/{quote(model, safe='')}/log", params={"day": day})

    def delete_log(self, model: str) -> None:
        """Turns the model's log off, and removes all that was written."""
        self.call("DELETE", f"/models/{quote(model, safe='')}/log")

    def point_alias(self, model: str, alias: str, version: int, **beside: float) -> Json:
        """Points an alias at a version; `beside`: canary and share, shadow."""
        path = f"/models/{quote(model, safe='')}/aliases/{quote(alias, safe='')}"
        return self.call("PUT", path, json={"version": version, **beside})

    def roll_back(self, model: str, alias: str = "production") -> Json:
        """Ends the canary of an alias; of one without, points it at the version that it meant before."""
        return self.call("POST", f"/models/{quote(model, safe='')}/aliases/{quote(alias, safe='')}/rollback")
