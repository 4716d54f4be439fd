"""What a running service does with many calls at once, told by its own metrics and its use of the processor."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from threading import Barrier, Event
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.main import make_state
from app.settings import Settings
from tests import factories
from tests.conftest import wait_until
from tests.e2e.conftest import Service, serve
from tests.inference import NAME, PICTURES, publish, publish_heavy

pytestmark = pytest.mark.server
# Images of one request that is given up: far more than are computed before the service hears of it.
NUM_GIVEN_UP = 64
COLOURS = [factories.png((11 * number % 256, 83 * number % 256, 10 * number), seed=number) for number in range(24)]


@pytest.fixture
def running(home: Path, tmp_path: Path, light: Settings) -> Iterator[Service]:
    """Prediction and routes in one process on one core; `tiny` with two versions, `slow` and `slower`."""
    state = make_state(light)
    publish(state, tmp_path / "made")
    publish_heavy(state, tmp_path / "made", "slow", num_layers=20)
    publish_heavy(state, tmp_path / "made", "slower", num_layers=100)
    state.engine.close()
    state.database.dispose()
    limits = {"serve_threads": 1, "serve_processes": 1, "max_queue_seconds": 600}
    with serve(home, ["both"], missing=("worker",), **limits) as service:
        yield service


def samples(service: Service, model: str | None = None) -> SimpleNamespace:
    """What the metrics say now: of the process, and of one model."""
    found = {
        (one.name, one.labels.get("model"), one.labels.get("outcome")): one.value
        for family in text_string_to_metric_families(service.request("GET", "/metrics").text)
        for one in family.samples
    }
    return SimpleNamespace(
        graphs=found["graft_pool_graphs", None, None],
        loads=found["graft_pool_loads_total", None, None],
        waiting=found["graft_predict_waiting_images", None, None],
        images=found.get(("nv_inference_count", model, None), 0),
        batches=found.get(("nv_inference_exec_count", model, None), 0),
        answered=found.get(("graft_predict_requests_total", model, "success"), 0),
        broken_off=found.get(("graft_predict_requests_total", model, "failure"), 0),
    )


def ask(service: Service, model: str, pictures: list[bytes]) -> httpx.Response:
    """One call on a connection of its own."""
    files = [("file", (f"{place}.png", data)) for place, data in enumerate(pictures)]
    return service.request("POST", f"/api/v1/models/{model}/predict?features=true", files=files)


def said(answer: httpx.Response) -> Any:
    """The features of each image, [N, D]; scores of the slow models are 0 and 1 whatever the image."""
    assert answer.status_code == 200, answer.text
    return np.array([row["features"] for row in answer.json()["predictions"]])


def agree(found_ND: Any, expected_ND: Any) -> None:
    """In other batches sums have another order."""
    np.testing.assert_allclose(found_ND, expected_ND, atol=1e-4 * np.abs(expected_ND).max())


def test_twenty_first_calls_load_a_model_once(running: Service) -> None:
    before, together = samples(running, "slow"), Barrier(20)

    def first(number: int) -> Any:
        together.wait()
        return said(ask(running, "slow", COLOURS[number : number + 1]))

    with ThreadPoolExecutor(20) as threads:
        answers_ND = np.concatenate(list(threads.map(first, range(20))))
    found = samples(running, "slow")
    # Backbone and head.
    assert (found.loads - before.loads, found.graphs - before.graphs) == (2, 2)
    assert (found.answered, found.images, found.broken_off) == (20, 20, 0)
    agree(answers_ND, said(ask(running, "slow", COLOURS[:20])))
    assert samples(running).loads == found.loads


def test_single_images_of_many_clients_share_batches_and_each_gets_its_own_answer(running: Service) -> None:
    alone_ND = np.concatenate([said(ask(running, "slow", [picture])) for picture in COLOURS])
    apart_NN = np.abs(alone_ND[:, None] - alone_ND).max(-1) + np.diag([np.inf] * len(COLOURS))
    assert apart_NN.min() > 1e-3 * np.abs(alone_ND).max(), "answers that tell pictures apart"
    before = samples(running, "slow")
    assert before.images == before.batches == len(COLOURS)
    places = [number % len(COLOURS) for number in range(240)]
    with ThreadPoolExecutor(24) as threads:
        answers = list(threads.map(lambda place: said(ask(running, "slow", [COLOURS[place]])), places))
    agree(np.concatenate(answers), alone_ND[places])
    found = samples(running, "slow")
    assert found.images - before.images == 240
    assert found.batches - before.batches < 240
    # Several of one request too, in its order.
    agree(said(ask(running, "slow", COLOURS[::-1])), alone_ND[::-1])


def test_what_nobody_waits_for_any_more_is_not_computed(running: Service) -> None:
    """By the processor's time: eight requests that are given up, and asking how they fare, take less than four."""
    process = psutil.Process(running.process.pid)

    def used() -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    pictures = (COLOURS * 3)[:NUM_GIVEN_UP]
    ask(running, "slower", pictures)
    start = used()
    said(ask(running, "slower", pictures))
    computed, before = used() - start, samples(running, "slower")
    form = httpx.Request("POST", running.url, files=[("file", ("a.png", data)) for data in pictures])
    body = form.read()
    address = running.url.removeprefix("http://")
    connections = [HTTPConnection(address, timeout=60) for _ in range(8)]
    start = used()
    for connection in connections:
        connection.request(
            "POST", "/api/v1/models/slower/predict", body, {"Content-Type": form.headers["Content-Type"]}
        )
    wait_until(lambda: samples(running).waiting > 6 * NUM_GIVEN_UP, "requests that have been taken on")
    for connection in connections:
        connection.close()
    wait_until(lambda: samples(running).waiting == 0, "an engine that has nothing to do")
    assert used() - start < 4 * computed
    found = samples(running, "slower")
    assert (found.broken_off - before.broken_off, found.answered, found.images) == (8, before.answered, before.images)
    assert ask(running, "slower", pictures[:1]).status_code == 200


def test_a_rollback_under_traffic_fails_no_request(running: Service) -> None:
    """Of a canary first, then of the version: who answers changes, and nobody notices otherwise."""
    alias, seen, ended = f"/api/v1/models/{NAME}/aliases/production", [[] for _ in range(4)], Event()

    def keep_asking(answers: list[tuple[int, str]]) -> None:
        with httpx.Client(base_url=running.url, timeout=60, trust_env=False) as client:
            while not ended.is_set():
                answer = client.post(f"/api/v1/models/{NAME}/predict", files={"file": ("a.png", PICTURES[0])})
                answers.append((answer.status_code, answer.headers.get("X-Graft-Version", "")))

    def until_only(*versions: str) -> None:
        """Each client was answered by these versions alone, ten times; where there are two, by both."""
        marks = [len(answers) for answers in seen]

        def ten() -> bool:
            lately = [answers[-10:] for answers, mark in zip(seen, marks, strict=True) if len(answers) >= mark + 10]
            found = {version for answers in lately for _, version in answers}
            return len(lately) == len(seen) and found == set(versions)

        wait_until(ten, f"answers by {versions} alone")

    def move(method: str, path: str, **body: Any) -> None:
        answer = running.request(method, path, json=body) if body else running.request(method, path)
        assert answer.status_code == 200, answer.text

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(keep_asking, answers) for answers in seen]
        try:
            move("PUT", alias, version=1)
            until_only("1")
            move("PUT", alias, version=1, canary=2, share=0.5)
            until_only("1", "2")
            move("POST", f"{alias}/rollback")
            until_only("1")
            move("PUT", alias, version=2)
            until_only("2")
            move("POST", f"{alias}/rollback")
            until_only("1")
        finally:
            ended.set()
        for one in asking:
            one.result(60)
    assert {status for answers in seen for status, _ in answers} == {200}


def test_days_of_a_log_that_are_over_are_removed_by_a_running_service(
    home: Path, tmp_path: Path, light: Settings
) -> None:
    """What one service wrote, made older, is gone from the next one's disk and answer; today's stays."""
    state = make_state(light)
    publish(state, tmp_path / "made")
    state.engine.close()
    state.database.dispose()
    log = f"/api/v1/models/{NAME}/log"
    with serve(home, ["both"], missing=("worker",)) as service:
        service.request("PUT", log, json={"share": 1, "keep_days": 2}).raise_for_status()
        said(ask(service, NAME, PICTURES))
        wait_until(lambda: service.request("GET", log).json()["days"], "a file of today's")
        (day,) = service.request("GET", log).json()["days"]
    (written,) = (home / "storage" / "predictions").glob(f"*/*/{day}")
    for old in ("2026-01-02", "2026-01-03"):
        written.with_name(old).mkdir()
        for file in written.iterdir():
            (written.with_name(old) / file.name).write_bytes(file.read_bytes())
    with serve(home, ["up"], worker_slots=1) as service:
        wait_until(lambda: service.request("GET", log).json()["days"] == [day], "old days that are removed")
        lines = service.request("GET", log, params={"day": day}).text.splitlines()
        assert len(lines) == len(PICTURES)
    assert sorted(path.name for path in written.parent.iterdir()) == [day]
