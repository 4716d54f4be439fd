"""What an ingestion and a transfer on cached features import; nothing with torch.

The process that runners are forked from imports this module, once; its runners have it from their start.
"""

import gc

import onnx  # noqa: F401
import onnxruntime  # noqa: F401
import pyarrow.compute  # noqa: F401
from PIL import Image

from app.serving import runtime  # noqa: F401
from worker import ingestion, runner, transfer  # noqa: F401
from worker.data import ingest  # noqa: F401
from worker.methods import few_shot, linear_probe  # noqa: F401
from worker.reports import report  # noqa: F401

# Pillow imports its decoders when it opens the first image.
Image.preinit()
# A collection in a runner would write to every object it finds here, and so copy the pages that are shared.
gc.freeze()
