"""Small models, and engines that a test can hold in the middle of a batch."""

import io
import threading
import time
from contextlib import contextmanager

import numpy as np
from PIL import Image

from app.artifact import heads
from app.serving.engine import Engine
from app.serving.model import Graph, Served
from app.serving.runtime import Session
from tests.app.onnx_factories import backbone_bytes, make_spec

LABELS = ("cat", "dog", "owl")
WEIGHT = np.random.default_rng(5).normal(size=(3, 6)) * 4
SPEC = make_spec(LABELS)
SECONDS = 30


def encoded(seed, size=(20, 14), form="PNG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    pixels //= np.uint8(1 + seed % 5)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


class Watched(Session):
    """A real session that notes the sizes of its batches, and runs none while `door` is shut."""

    def __init__(self, data):
        super().__init__(data, threads=1)
        self.door = threading.Event()
        self.door.set()
        self.forget()

    def forget(self):
        self.sizes, self.entered = [], threading.Semaphore(0)

    def run(self, batch):
        self.sizes.append(len(batch))
        self.entered.release()
        assert self.door.wait(SECONDS)
        return super().run(batch)


def graph(data, name=None):
    return Graph(name or str(hash(data)), lambda _: Session(data, threads=1))


def served(weight=WEIGHT, backbone=None, alignment=None, bias=(0, 0, 0)):
    head = heads.linear(weight, np.array(bias, float))
    return Served(SPEC, backbone or graph(backbone_bytes(), "backbone"), graph(head), alignment)


def watched(engine):
    """A model that is in memory and whose backbone can be held, and that backbone."""
    session = Watched(backbone_bytes())
    model = served(backbone=Graph("watched", lambda _: session))
    load(engine, model)
    session.forget()
    return model, session


def load(engine, *models):
    for model in models:
        engine.load(model)


@contextmanager
def running(num_threads, limits=None):
    made = Engine(1 << 30, num_threads, limits)
    yield made
    made.close()
    assert made.num_images == 0


def until(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)
