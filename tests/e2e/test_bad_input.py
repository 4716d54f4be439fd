"""Bad input gets a clear problem, and leaves nothing behind: no file, no process. Attacks are in test_hostile.py."""

import pytest

from tests import factories
from tests.checks import problem
from tests.conftest import SMALL_DISK_BYTES, wait_until
from tests.factories import files_below

pytestmark = pytest.mark.server
RED = {"red": factories.COLOURS["red"]}
GOOD = factories.pictures(3, {**RED, "blue": factories.COLOURS["blue"]})


# What is refused at the door, and what ingestion finds; both with the code that says so.
AT_THE_DOOR = {"text": b"no archive at all", "empty file": b""}
INSIDE = {
    "broken zip": (b"PK\x03\x04" + b"x" * 100, "not_an_archive"),
    "empty zip": (factories.pack({}), "empty_archive"),
    "nothing decodable": (factories.pack({f"{name}/a.png": b"text" for name in "ab"}), "nothing_decodable"),
    "one class": (factories.pack(factories.pictures(4, RED)), "one_class"),
    "one image in a class": (factories.pack({**GOOD, "green/0.png": factories.png(seed=9)}), "class_too_small"),
}


def upload(service, body, **fields):
    return service.request(
        "POST", "/api/v1/datasets", files={"file": ("data.zip", body)}, data={"name": "bad", **fields}
    )


def settled(service):
    """Nothing of a refused upload is left: no file, no message, no process."""
    wait_until(lambda: service.files() == [], f"no files; found {service.files()}")
    assert service.runners() == []
    return True


def test_bad_uploads_leave_nothing_behind(up, tmp_path):
    service = up()
    outside = set(tmp_path.iterdir())
    for case, body in AT_THE_DOOR.items():
        found = problem(upload(service, body), 400, "not_an_archive")
        assert "zip" in found["detail"], case
    problem(upload(service, factories.pack(GOOD), task="poetry"), 400, "unsupported_task")
    assert service.client.call("GET", "/datasets")["data"] == []
    assert settled(service)
    made = {case: upload(service, body).json() for case, (body, _) in INSIDE.items()}
    for case, (_, code) in INSIDE.items():
        dataset = service.client.wait_dataset(made[case]["id"])
        problems = list(service.client.problems(dataset["id"]))
        assert (case, dataset["state"]) == (case, "invalid")
        assert dataset["failure"]["code"] == code, (case, dataset["failure"])
        assert code in {item["code"] for item in problems if item["severity"] == "error"}, (case, problems)
        assert "expected" in dataset["failure"]["message"], case
        job = service.client.job(made[case]["job_id"])
        assert (job["state"], job["failure"]["code"], job["attempt"]) == ("failed", "dataset_invalid", 1)
        refused = service.request(
            "POST", "/api/v1/jobs", json={"dataset": dataset["id"], "recipe": {"method": "linear_probe"}, "model": "m"}
        )
        problem(refused, 409, "dataset_not_ready")
        assert service.request("DELETE", f"/api/v1/datasets/{dataset['id']}").status_code == 204
    assert settled(service)
    assert set(tmp_path.iterdir()) == outside
    assert service.client.call("GET", "/datasets")["data"] == []
    assert "Traceback" not in service.log.read_text()


def test_full_disk(up, small_disk, home):
    big = factories.pack(GOOD) + bytes(SMALL_DISK_BYTES)
    (home.parent / "home").symlink_to(small_disk)
    service = up()
    before = service.files()
    found = problem(upload(service, big), 507, "insufficient_storage")
    assert "disk is full" in found["detail"]
    assert service.files() == before == []
    assert service.client.call("GET", "/datasets")["data"] == []
    assert service.client.call("GET", "/jobs")["data"] == []
    # The service itself goes on.
    small = upload(service, factories.pack(GOOD)).json()
    assert service.client.wait_dataset(small["id"])["state"] == "ready"
    assert files_below(home / "scratch") == []
