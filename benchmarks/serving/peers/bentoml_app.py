"""An image classifier on BentoML as its documentation sets one up: a batchable endpoint with adaptive batching."""

import os
from pathlib import Path

import bentoml
import numpy as np
import onnxruntime as ort
from decoding import prepare


@bentoml.service(workers=int(os.environ["WORKERS"]), traffic={"timeout": 120, "max_concurrency": 4096})
class Classifier:
    def __init__(self):
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ["THREADS"])
        self.session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=60_000)
    def classify(self, images: list[Path]) -> list[dict]:
        batch = np.stack([prepare(path.read_bytes()) for path in images])
        found = self.session.run(["probabilities"], {"images": batch})[0]
        return [{"label": int(row.argmax()), "scores": row.tolist()} for row in found]
