"""Engines on two cores and on one, and what answers without an engine."""

import numpy as np
import pytest

from app.artifact import heads
from app.serving import lanes
from app.serving.runtime import Runtime, Session
from tests.app.onnx_factories import backbone_bytes
from tests.app.serving.engines import WEIGHT, running


@pytest.fixture
def engine():
    with running(2) as made:
        yield made


@pytest.fixture
def single(monkeypatch):
    """An engine on one core: one batch after the other, none smaller since a test held the one before."""
    monkeypatch.setattr(lanes, "BATCH_SECONDS", 1000.0)
    with running(1) as made:
        yield made


@pytest.fixture
def reference():
    return Runtime(Session(backbone_bytes()), Session(heads.linear(WEIGHT, np.zeros(3))))
