"""What is done to models while something breaks: their aliases, classes, bundles, logs and what is observed of them."""

import time
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import select

from app.db.models import ModelVersion
from app.serving.moments import Moments
from app.serving.parts import ROOT, Parts, prefix
from app.serving.slots import DAY, HOUR, Key, Span
from benchmarks.chaos.clock import wait_until
from benchmarks.chaos.lab import Done, Lab, numbers
from benchmarks.chaos.scenarios import transfer
from tests import factories


def alias(lab: Lab) -> Done:
    stack, name = lab.stack, f"a{next(numbers)}"
    stack.persist(lambda: stack.client.point_alias(lab.model, name, 1))
    call = stack.client.call
    means = stack.persist(lambda: call("GET", f"/models/{lab.model}"))["aliases"][name]
    changes = stack.persist(lambda: call("GET", f"/models/{lab.model}/aliases/{name}"))["data"]
    return Done([], {"version": means, "history": [one["version"] for one in changes]})


def add_class(lab: Lab) -> Done:
    """A class of a few images, in a model of its own."""
    base = transfer(lab)
    (name,) = base.models
    images = [("file", (str(one), factories.png((240, 230, 40), seed=one))) for one in range(6)]
    path = f"/models/{name}/classes"
    lab.stack.post(path, f"class-{name}", files=images, data={"label": "yellow"})
    call = lab.stack.client.call
    spec = lab.stack.persist(lambda: call("GET", f"/models/{name}/versions/2"))["spec"]
    report = lab.stack.persist(lambda: call("GET", f"/models/{name}/versions/2/files/report.json"))
    # Not the weights: images that are asked about alone or together differ in their last bits.
    return Done(base.jobs, {"labels": spec["labels"], "old_classes": report["old_classes"]}, {name: 2})


def import_bundle(lab: Lab) -> Done:
    stack, name = lab.stack, f"i{next(numbers)}"
    bundle = stack.folder / "bundle.zip"
    if not bundle.exists():
        stack.client.download_bundle(lab.model, 1, bundle)
    stack.persist(lambda: stack.client.import_bundle(name, bundle, idempotency_key=f"import-{name}"))
    found = stack.persist(lambda: stack.client.call("GET", f"/models/{name}/versions/1"))
    return Done([], {"weights": found["spec"]["files"]["weights.safetensors"]["sha256"]}, {name: 1})


def logged(lab: Lab) -> Done:
    """Predictions that are written down."""
    stack = lab.stack
    stack.persist(lambda: stack.client.set_log(lab.model, 1.0))

    def asked() -> bool:
        stack.persist(lambda: stack.client.predict(lab.model, [factories.png()]))
        return bool(list(stack.storage.list("predictions")))

    wait_until(asked, "a file of predictions", 60)
    stack.delete(lambda: stack.client.delete_log(lab.model))
    return Done()


def observed(lab: Lab) -> Done:
    """Predictions whose sums are stored, and a day of them that a worker joins at its start."""
    stack = lab.stack
    before = set(stack.storage.list(ROOT))

    def asked() -> bool:
        stack.persist(lambda: stack.client.predict(lab.model, [factories.png()]))
        return set(stack.storage.list(ROOT)) != before

    wait_until(asked, "sums that are stored", 120)
    with stack.database.read() as session:
        newest = select(ModelVersion.project_id, ModelVersion.id).order_by(ModelVersion.id.desc()).limit(1)
        project, version_id = session.execute(newest).one()
    stored, key = Parts(stack.storage, stack.folder), Key(project, version_id, None)
    day = int(time.time()) // DAY * DAY - 3 * DAY
    folder = f"{prefix(project, version_id)}/plain/{datetime.fromtimestamp(day, UTC).date()}"
    stack.storage.delete(folder)
    images = Moments.of(np.ones((3, 2), np.float32), np.ones((3, 1), np.float32))
    for hour in range(3):
        stored.put(key, Span(day + hour * HOUR, HOUR, "a" * 32, 3), images)
    stack.kill("worker")
    wait_until(lambda: any("whole" in name for name in stack.storage.list(folder)), "a day that is joined", 120)
    found = stored.read(key, day - 1, {})
    return Done(
        [], {"joined": [moments.num_images for span, moments in found.items() if span.start // DAY * DAY == day]}
    )
