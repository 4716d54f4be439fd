"""An image classifier on LitServe as its documentation sets one up: multipart upload, batching, workers by device."""

import os

import litserve as ls
import numpy as np
import onnxruntime as ort
from decoding import prepare
from fastapi import UploadFile


class Classifier(ls.LitAPI):
    def setup(self, device):
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ["THREADS"])
        self.session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: UploadFile):
        return prepare(request.file.read())

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, batch):
        return self.session.run(["probabilities"], {"images": batch})[0]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"label": int(output.argmax()), "scores": output.tolist()}


if __name__ == "__main__":
    api = Classifier(max_batch_size=16, batch_timeout=float(os.environ.get("BATCH_TIMEOUT", "0.01")))
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=int(os.environ["WORKERS"]), timeout=120)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="error")
