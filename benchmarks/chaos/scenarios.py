"""What is done to a service while something breaks, as a client that repeats what was not answered."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import select

from app.artifact import bundle
from app.client import ApiError
from app.db.models import Dataset, Job, UserBackbone
from benchmarks.chaos import prepare
from benchmarks.chaos.clock import wait_until
from benchmarks.chaos.lab import PROBE, Done, Lab, finish, numbers, plain, timeless
from benchmarks.chaos.prepare import CNN, OTHER, TINY
from benchmarks.chaos.stack import LEASE_SECONDS, Stack
from tests import factories
from worker.backbones import prepared, weights

TUNE = {"method": "fine_tune", "scope": "full", "epochs": 12, "max_minutes": 30}


def transfer(lab: Lab, recipe: dict[str, Any] | None = None, backbone: str = TINY, **fields: Any) -> Done:
    """A version, and the bits of what it learned."""
    stack, name = lab.stack, f"m{next(numbers)}"
    body = {"kind": "transfer", "dataset": lab.dataset, "backbone": backbone, "recipe": recipe or PROBE,
            "model": name, "seed": 7, **fields}  # fmt: skip
    made = stack.post("/jobs", f"transfer-{name}", json=body)
    return transferred(stack, made["id"], name)


def transferred(stack: Stack, job_id: str, name: str) -> Done:
    (job,) = finish(stack, [job_id])
    return Done([job_id], learned(stack, job, name, 1), {name: 1})


def learned(stack: Stack, job: Job, name: str, version: int) -> dict[str, Any]:
    """Figures of an ended transfer, and the bits of what it has published."""
    told: dict[str, Any] = {"metrics": plain(job.metrics)}
    if job.state == "succeeded":
        found = stack.persist(lambda: stack.client.call("GET", f"/models/{name}/versions/{version}"))
        told["weights"] = found["spec"]["files"]["weights.safetensors"]["sha256"]
    return told


def _forget(stack: Stack, folder: str) -> None:
    """Removes what jobs have computed, of which the storage may hear once it is there again."""
    stack.persist(lambda: stack.storage.delete(folder))


def cold(lab: Lab) -> Done:
    """A transfer for which nothing is extracted yet."""
    _forget(lab.stack, "features/default")
    return transfer(lab)


def first_on_backbone(lab: Lab) -> Done:
    """A transfer that is the first on its backbone."""
    _forget(lab.stack, "graphs")
    return transfer(lab)


def tune(lab: Lab) -> Done:
    _network(lab)
    return transfer(lab, TUNE, CNN)


def auto(lab: Lab) -> Done:
    """Whatever fits the data, on all backbones that are there; what was decided is part of what must be equal."""
    _network(lab)
    done = transfer(lab, {"method": "auto", "max_minutes": 30}, CNN)
    report = lab.stack.persist(lambda: lab.stack.client.call("GET", f"/jobs/{done.jobs[0]}/report"))
    # Reasons name seconds.
    decisions = [{name: one[name] for name in ("step", "outcome", "score")} for one in report["decisions"]]
    return replace(done, result=done.result | {"decisions": decisions})


def extract(lab: Lab) -> Done:
    """A file of features, for which nothing is extracted yet; whoever goes on finds some of them extracted."""
    stack, number = lab.stack, next(numbers)
    _forget(stack, "features/default")
    made = stack.post("/jobs", f"extract-{number}", json={"kind": "extract", "dataset": lab.dataset, "backbone": TINY})
    (job,) = finish(stack, [made["id"]])
    target = stack.folder / f"features-{number}.parquet"
    stack.persist(lambda: stack.client.download_features(job.id, target))
    metrics = plain(job.metrics)
    metrics["num_known"] = metrics.pop("num_cached", 0) + metrics.pop("num_extracted", 0)
    return Done([job.id], {"metrics": metrics, "sha256": sha256(target)})


def adapt(lab: Lab) -> Done:
    recipe = {"method": "adapt", "source": lab.dataset, "candidates": ["dann"], "max_minutes": 30}
    return transfer(lab, recipe, dataset=_unlabelled(lab))


def ingest(lab: Lab) -> Done:
    found = lab.ingest(f"d{next(numbers)}")
    named = {name: found[name] for name in ("state", "digest", "splits", "classes", "num_samples", "num_problems")}
    return Done([_job_of(lab, found["id"])], named)


def repeated(lab: Lab) -> Done:
    """A request that is sent again after its answer: the dataset is made once, and the upload is used up once."""
    name = f"r{next(numbers)}"
    sent = lab.stack.persist(lambda: lab.stack.client.upload(lab.archive))
    body = {"name": name, "upload_id": sent["id"]}
    first, again = (lab.stack.post("/datasets", name, json=body) for _ in range(2))
    finish(lab.stack, [first["job_id"]])
    return Done([first["job_id"]], {"same": first == again})


def refused(lab: Lab) -> Done:
    """A form that is refused once it is whole: what was reserved for its file is given back."""
    files, data = {"file": ("a.zip", lab.archive.read_bytes())}, {"name": f"f{next(numbers)}", "task": "none"}

    def refusal() -> str:
        try:
            lab.stack.client.call("POST", "/datasets", files=files, data=data)
        except ApiError as error:
            if error.status == 400:
                return error.code
            raise
        raise AssertionError("expected the form to be refused; found it taken")

    return Done([], {"code": lab.stack.persist(refusal)})


def late(lab: Lab) -> Done:
    """A transfer whose first attempt loses its lease before it computes, and finds that another has gone on."""
    lab.stack.arm("claim_committed", f"sleep {4 * LEASE_SECONDS}")
    done = transfer(lab)
    assert lab.stack.reached("claim_committed"), "expected an attempt that waited past its lease; found none"
    return done


def upload(lab: Lab) -> Done:
    """A dataset out of a resumable upload."""
    client = lab.stack.client
    sent = lab.stack.persist(lambda: client.upload(lab.archive))
    made = client.dataset_of_upload(sent["id"], f"u{next(numbers)}")
    finish(lab.stack, [made["job_id"]])
    found = lab.stack.persist(lambda: client.dataset(made["id"]))
    return Done([made["job_id"]], {name: found[name] for name in ("state", "digest", "splits", "num_samples")})


def folds(lab: Lab, repeats: int = 4) -> Done:
    """The cheapest job that checkpoints: a recipe over repeated folds, each of which is kept."""
    body = {"mode": "folds", "dataset": lab.dataset, "backbone": TINY, "recipe": PROBE, "folds": 5, "repeats": repeats,
            "seed": 3}  # fmt: skip
    return _study(lab, "/evaluations", body)


def rank(lab: Lab) -> Done:
    return _study(lab, "/rankings", {"dataset": lab.dataset, "backbones": [TINY, OTHER], "max_minutes": 30})


def advise(lab: Lab) -> Done:
    return _study(lab, f"/datasets/{lab.dataset}/advice", {"backbone": TINY})


def predict(lab: Lab) -> Done:
    stack, number = lab.stack, next(numbers)
    body = {"kind": "predict", "dataset": lab.dataset, "model": lab.model, "version": 1, "format": "jsonl"}
    made = stack.post("/jobs", f"predict-{number}", json=body)
    (job,) = finish(stack, [made["id"]])
    target = stack.folder / f"predictions-{number}.jsonl"
    stack.persist(lambda: stack.client.download_predictions(job.id, target))
    return Done([job.id], {"metrics": plain(job.metrics), "sha256": sha256(target)})


def align(lab: Lab) -> Done:
    return _align(lab, {"method": "z_score", "target": _unlabelled(lab)})


def align_across(lab: Lab) -> Done:
    """An alignment that takes the features of another backbone, and is the first on that one."""
    found = prepared.find(OTHER, [lab.stack.prepared])
    assert found is not None
    lab.stack.storage.delete(bundle.shared_key(found.digest))
    done = _align(lab, {"method": "ridge", "from_backbone": OTHER})
    assert lab.stack.storage.stat(bundle.shared_key(found.digest)), "expected the other backbone's graph; found none"
    return done


def _align(lab: Lab, given: dict[str, Any]) -> Done:
    body = {"source": lab.dataset, "backbone": TINY, "seed": 0, **given}
    made = lab.stack.post("/alignments", f"align-{next(numbers)}", json=body)
    finish(lab.stack, [made["job_id"]])
    found = lab.stack.persist(lambda: lab.stack.client.call("GET", f"/alignments/{made['id']}"))
    return Done([made["job_id"]], {"result": found["result"]})


def delete(lab: Lab) -> Done:
    """A dataset that goes, with all its files."""
    stack, made = lab.stack, lab.upload(f"d{next(numbers)}")

    def gone() -> bool:
        try:
            stack.client.call("DELETE", f"/datasets/{made}")
        except ApiError as error:
            if error.status != 404:
                raise
        return True

    return Done([_job_of(lab, made)], {"gone": stack.persist(gone)})


def own_backbone(lab: Lab) -> Done:
    """A network of the user's own, from a file of weights."""
    stack, name = lab.stack, f"b{next(numbers)}"
    _network(lab)
    found = prepared.find(CNN, [lab.stack.prepared])
    assert found is not None
    data = {"name": name, "architecture": CNN}
    files = {"file": ("weights.safetensors", found.weights.read_bytes())}

    def added() -> Any:
        try:
            return stack.client.call("POST", "/backbones", files=files, data=data)
        except ApiError as error:
            if error.status != 409:
                raise
            return stack.client.call("GET", f"/backbones/own/{name}")

    job_id = stack.persist(added)["job_id"]
    finish(stack, [job_id])
    row = stack.persist(lambda: stack.client.call("GET", f"/backbones/own/{name}"))
    with stack.database.read() as session:
        document = session.scalars(select(UserBackbone.document).where(UserBackbone.name == row["name"])).one()
    record = json.loads(stack.storage.fetch(f"{document['prefix']}/{prepared.RECORD}").read_bytes())
    for file, digest in record["files"].items():
        assert weights.sha256_file(stack.storage.fetch(f"{document['prefix']}/{file}")) == digest, file
    # Of what is computed, and of every file that says how.
    return Done([job_id], {"state": row["state"], "digest": record["digest"], "files": record["files"]})


def told(lab: Lab) -> Done:
    """A job whose end is told to a receiver, at least once."""
    stack = lab.stack
    hook = stack.post(
        "/webhooks", f"hook-{next(numbers)}", json={"url": stack.receiver.url, "events": ["job.succeeded"]}
    )
    before = len(stack.receiver.got)
    done = transfer(lab)
    bodies = lambda: [json.loads(got.body) for got in stack.receiver.got[before:]]  # noqa: E731
    wait_until(lambda: any(one["data"]["id"] in done.jobs for one in bodies()), "an event that is told", 90)
    path = f"/webhooks/{hook['id']}"

    def all_delivered() -> bool:
        rows = stack.persist(lambda: stack.client.call("GET", f"{path}/deliveries"))["data"]
        return bool(rows) and all(row["state"] == "delivered" for row in rows)

    wait_until(all_delivered, "deliveries that are written down", 90)
    stack.persist(lambda: stack.client.call("DELETE", path) or True)
    return done


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _network(lab: Lab) -> None:
    """The network that is trained, once its worker has said that it has it."""
    prepare.network(lab.stack.prepared, lab.stack.home)
    call = lab.stack.client.call
    wait_until(lambda: lab.stack.persist(lambda: call("GET", f"/backbones/{CNN}"))["available"], f"{CNN} at hand", 120)


def _study(lab: Lab, path: str, body: dict[str, Any]) -> Done:
    made = lab.stack.post(path, f"study-{next(numbers)}", json=body)
    finish(lab.stack, [made["job_id"]])
    place = path.rpartition("/")[2] if "advice" in path else path.strip("/")
    found = lab.stack.persist(lambda: lab.stack.client.call("GET", f"/{place}/{made['id']}"))
    return Done([made["job_id"]], {"state": found["state"], "result": timeless(found["result"])})


def _unlabelled(lab: Lab) -> str:
    """The same pictures a little darker, once for each lab."""
    if lab.other is None:
        archive = lab.folder / "other.zip"
        darker = {name: (red // 2, green // 2, blue // 2) for name, (red, green, blue) in factories.COLOURS.items()}
        archive.write_bytes(factories.pack(factories.pictures(16, darker, first=40)))
        lab.other = str(lab.ingest("other", archive)["id"])
    return lab.other


def _job_of(lab: Lab, dataset_id: str) -> str:
    with lab.stack.database.read() as session:
        return str(session.get_one(Dataset, dataset_id).job_id)
