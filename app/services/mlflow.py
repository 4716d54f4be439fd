"""A version as an MLflow model folder, written without MLflow: `mlflow.onnx` and `mlflow.pyfunc` load it.

The format is MLflow's own (https://mlflow.org/docs/latest/ml/model, "Storage Format"): `MLmodel` names the flavors and
the signature, and beside it lie the graph and what must be installed. The graph takes pixels in the model's size; how
an image becomes them is under `metadata` and in `spec.json`.
"""

import json
import platform
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from app import texts
from app.artifact.spec import Spec
from app.db.models import ModelVersion
from app.libraries import version
from app.services.compositions import MODEL
from app.services.exports import Files

# Written and read back by the tests; older ones that have the flavor read it as well.
FORMAT_VERSION = "3.0.0"


def folder(row: ModelVersion, name: str, model: Path) -> Files:
    """`NAME-VERSION/MLmodel` and the files that it names; the graph is composed already."""
    spec = Spec.model_validate(row.spec)
    # Of this installation, which has loaded the graph: what a spec from elsewhere says could be anything.
    needed = ["mlflow>=2.10", *(f"{library}=={version(library)}" for library in ("onnx", "onnxruntime"))]
    files: Files = {
        "MLmodel": _model(row, name, spec).encode(),
        MODEL: model,
        "requirements.txt": "".join(f"{line}\n" for line in needed).encode(),
        "python_env.yaml": _python_env().encode(),
        "conda.yaml": _conda(needed).encode(),
        "spec.json": json.dumps(row.spec, ensure_ascii=False, indent=2).encode(),
    }
    return {f"{name}-{row.version}/{path}": content for path, content in files.items()}


def _model(row: ModelVersion, name: str, spec: Spec) -> str:
    """YAML; as JSON, which YAML all but contains, wherever text comes from elsewhere."""
    shape = spec.inputs[0].shape
    signature = {
        "inputs": [_tensor("images", "uint8", shape)],
        "outputs": [_tensor(output.name, output.dtype, output.shape) for output in spec.outputs],
    }
    document = spec.model_dump(mode="json")
    metadata = {
        "graft": {
            "model": name,
            "version": row.version,
            "task": spec.task,
            "labels": list(spec.labels),
            "preprocessing": document["inputs"][0]["preprocessing"],
            "backbone": document["backbone"],
        }
    }
    return f"""flavors:
  onnx:
    code: null
    data: {MODEL}
    onnx_version: {version("onnx")}
    onnx_session_options: null
    providers: [CUDAExecutionProvider, CPUExecutionProvider]
  python_function:
    data: {MODEL}
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.onnx
    python_version: {platform.python_version()}
metadata: {texts.in_yaml(metadata)}
mlflow_version: {FORMAT_VERSION}
model_uuid: {uuid5(NAMESPACE_OID, row.id).hex}
signature:
  inputs: {json.dumps(json.dumps(signature["inputs"]))}
  outputs: {json.dumps(json.dumps(signature["outputs"]))}
  params: null
utc_time_created: "{row.created_at:%Y-%m-%d %H:%M:%S.%f}"
"""


def _tensor(name: str, dtype: str, shape: tuple[int | None, ...]) -> dict[str, Any]:
    sizes = [-1 if size is None else size for size in shape]
    return {"name": name, "type": "tensor", "tensor-spec": {"dtype": dtype, "shape": sizes}}


def _python_env() -> str:
    return f"""python: {platform.python_version()}
build_dependencies: [pip, setuptools, wheel]
dependencies: [-r requirements.txt]
"""


def _conda(needed: list[str]) -> str:
    return f"""name: mlflow-env
channels: [conda-forge]
dependencies:
  - python={platform.python_version()}
  - pip
  - pip: {json.dumps(needed)}
"""
