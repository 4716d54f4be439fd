"""A version as others take it: the bundle for another Graft; a folder for servers that read Triton's layout."""

import json
from collections.abc import Mapping
from pathlib import Path

from app.artifact import bundle
from app.artifact import spec as specs
from app.artifact.spec import Spec
from app.db.models import ModelVersion
from app.services.compositions import MODEL
from app.serving import stored
from app.serving.runtime import BATCH_SIZE
from app.storage import Storage

Files = Mapping[str, bytes | Path]


def whole(storage: Storage, row: ModelVersion) -> Files:
    """Every file of the bundle by its name, `spec.json` first, with the shared graph among them.

    The graph's place in this store is left out of `spec.json`, which says only that it is shared: so a version and what
    was imported from it give the same bytes. Domains are the model's, not the version's, and stay here.
    """
    spec = specs.of_row(row.spec)
    files = {name: spec.files[name] for name in bundle.FILES if name in spec.files}
    told = {name: file if file.key is None else file.model_copy(update={"key": name}) for name, file in files.items()}
    found: dict[str, bytes | Path] = {bundle.SPEC: specs.dump(spec.model_copy(update={"files": told}))}
    return found | {name: stored.fetch(storage, row.prefix, spec, name) for name in files}


def repository(row: ModelVersion, name: str, model: Path) -> Files:
    """`NAME/config.pbtxt`, `NAME/labels.txt` and `NAME/VERSION/model.onnx`, which is composed already.

    The graph takes pixels in the model's size, `images` uint8 [N, H, W, 3], and gives `probabilities` and `features`:
    whoever serves it elsewhere decodes and resizes as `spec.json`, which lies beside it, says.
    """
    spec = Spec.model_validate(row.spec)
    files: Files = {
        "config.pbtxt": _config(name, spec).encode(),
        "labels.txt": "".join(f"{_one_line(label)}\n" for label in spec.labels).encode(),
        f"{row.version}/{MODEL}": model,
        f"{row.version}/spec.json": json.dumps(row.spec, ensure_ascii=False, indent=2).encode(),
    }
    return {f"{name}/{path}": content for path, content in files.items()}


def _config(name: str, spec: Spec) -> str:
    """Model configuration in the text form of protocol buffers; a name is plain, and JSON quotes it as they do."""
    height, width = spec.preprocess.height, spec.preprocess.width
    return f"""name: {json.dumps(name)}
platform: "onnxruntime_onnx"
max_batch_size: {BATCH_SIZE}
input [ {{ name: "images" data_type: TYPE_UINT8 dims: [ {height}, {width}, 3 ] }} ]
output [
  {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {len(spec.labels)} ] label_filename: "labels.txt" }},
  {{ name: "features" data_type: TYPE_FP32 dims: [ {spec.backbone.feature_dim} ] }}
]
dynamic_batching {{ }}
"""


def _one_line(label: str) -> str:
    """A label as one line of a file: line breaks in it become spaces."""
    return " ".join(label.splitlines())
