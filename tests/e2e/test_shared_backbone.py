"""What ten probes on one backbone cost the process that serves them."""

import psutil
import pytest

from app.artifact import bundle
from app.db.session import Database
from app.settings import Settings
from app.storage import open_storage
from tests import factories, processes
from tests.app import onnx_factories

pytestmark = pytest.mark.server
NUM_PROBES = 10
# One wide layer, of 64 MiB.
WIDTH = 4096


def test_ten_probes_on_one_backbone_cost_the_server_one_backbone(up, home, tmp_path):
    service = up(worker_slots=1, serve_processes=1)
    settings = Settings(home=home)
    database, storage = Database(settings.resolved_database_url), open_storage(settings.resolved_storage_url, tmp_path)
    network = tmp_path / "wide.onnx"
    network.write_bytes(onnx_factories.heavy_backbone_bytes(1, WIDTH))
    graph_bytes = network.stat().st_size
    with database.write() as session:
        of = factories.model(session, "probes", 0)
        for number in range(1, NUM_PROBES + 1):
            shared = {"backbone": bundle.entry(network, factories.SHARED_GRAPH)}
            factories.published(session, storage, tmp_path / "made", of, number, parts=shared)
    storage.put(factories.SHARED_GRAPH, network)
    database.dispose()
    (server,) = processes.named(home, "app.cli", "both")

    def ask(version: int) -> None:
        files = [("file", (f"{place}.png", factories.png(seed=place))) for place in range(16)]
        answer = service.request("POST", f"/api/v1/models/probes/predict?version={version}", files=files)
        assert answer.status_code == 200, answer.text

    def held() -> tuple[int, float, float]:
        """Resident memory; bytes and graphs that the pool counts."""
        rows = dict(line.split(" ") for line in service.request("GET", "/metrics").text.splitlines() if line[0] != "#")
        return psutil.Process(server.pid).memory_info().rss, *(
            float(rows[f"graft_pool_{name}"]) for name in ("bytes", "graphs")
        )

    for _ in range(3):
        ask(1)
    before = held()
    assert before[1] > graph_bytes
    assert before[2] == 2
    for version in range(2, NUM_PROBES + 1):
        ask(version)
    after = held()
    assert after[2] == 1 + NUM_PROBES
    # Nine more heads of a few kilobytes. Nine more backbones would be twice nine times what this leaves room for.
    assert after[1] - before[1] < 0.1 * graph_bytes
    assert after[0] - before[0] < graph_bytes
