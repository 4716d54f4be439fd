"""What an ingestion and a transfer on cached features import; nothing with torch.

The process that runners are forked from imports this module, once; its runners have it from their start.
"""

import gc

import onnxruntime  # noqa: F401
import pyarrow.compute  # noqa: F401

from app.serving import runtime  # noqa: F401
from worker import ingestion, runner, transfer  # noqa: F401
from worker.data import ingest  # noqa: F401
from worker.evaluate import report  # noqa: F401
from worker.methods import few_shot, linear_probe  # noqa: F401

# A collection in a runner would write to every object it finds here, and so copy the pages that are shared.
gc.freeze()
