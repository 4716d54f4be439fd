"""What an engine holds while it is busy, on graphs as they are served."""

import subprocess
import sys

import pytest

from app.settings import Settings

BUSY = """
import resource, sys, threading
from pathlib import Path
import numpy as np
import onnxruntime
from app.artifact import heads
from app.serving.engine import Engine
from app.serving.model import Graph, Served
from app.serving.runtime import Session
from tests.app.onnx_factories import make_spec

budget, paths = int(sys.argv[1]), [Path(path) for path in sys.argv[2:]]

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

head = heads.linear(np.zeros((2, 1280)), np.zeros(2))
models, pixels = [], []
for path in paths:
    backbone = Graph(path.parent.name, lambda threads, path=path: Session(path, threads))
    models.append(Served(make_spec(("a", "b")), backbone, Graph(f"head {path}", lambda _: Session(head, 1))))
    pixels.append(np.ones((64, *Session(path, 1).input_shape[1:]), np.uint8))
before, most, counted, done = held(), [0], [0], threading.Event()
engine = Engine(budget, 4)

def watch():
    while not done.wait(0.005):
        most[0], counted[0] = max(most[0], held() - before), max(counted[0], engine.pool.stats().size_bytes)

watcher = threading.Thread(target=watch)
watcher.start()
for call in [engine.submit(model, images) for model, images in zip(models, pixels)]:
    call.result(120)
done.set()
watcher.join()
num_loads = engine.pool.stats().num_loads
for _ in range(3):
    engine.submit(models[-1], pixels[-1][:2]).result(120)
print(most[0], counted[0], engine.pool.stats().num_loads - num_loads)
engine.close()
"""
STARTERS = sorted(Settings().prepared.glob("*/backbone.onnx"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize(("number", "budget"), [(1, 192 << 20), (2, 384 << 20)])
def test_a_busy_engine_stays_within_its_budget(number, budget):
    """Without a bound on what runs at once, these held 317 and 644 MB."""
    command = [sys.executable, "-c", BUSY, str(budget), *map(str, STARTERS[:number])]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    most, counted, num_loads = map(int, said.stdout.split())
    assert 0 < most <= budget
    assert counted <= budget
    assert num_loads == 0
