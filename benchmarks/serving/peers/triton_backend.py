"""ONNX Runtime as one of Triton's backends: its own is not in pip's package of the server, which takes such a file."""

import json
import os
import sys
from pathlib import Path

sys.path.append(os.environ["PEER_PACKAGES"])

import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """One version of a model, as its folder has it."""

    @staticmethod
    def auto_complete_config(config):
        """Leaves what `config.pbtxt` says as it is."""
        return config

    def initialize(self, args):
        """Loads the graph that lies where ONNX Runtime's own backend looks for it."""
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.inputs, self.outputs = (
            [one["name"] for one in json.loads(args["model_config"])[kind]] for kind in ("input", "output")
        )

    def execute(self, requests):
        """Answers each request of a batch."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        given = {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
        found = self.session.run(self.outputs, given)
        return triton.InferenceResponse([triton.Tensor(*one) for one in zip(self.outputs, found, strict=True)])
