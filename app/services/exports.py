"""A version as other servers load it: a model-repository folder (Triton, and who reads its layout)."""

import io
import json
import zipfile

from app.artifact.spec import Spec
from app.db.models import ModelVersion
from app.services import predictions
from app.serving.runtime import BATCH_SIZE
from app.storage import Storage

# The same bytes each time: a zip would else carry the moment that it was made.
EPOCH = (1980, 1, 1, 0, 0, 0)


def repository(storage: Storage, row: ModelVersion, name: str) -> bytes:
    """A zip of `NAME/config.pbtxt`, `NAME/labels.txt` and `NAME/VERSION/model.onnx`.

    The graph takes pixels in the model's size, `images` uint8 [N, H, W, 3], and gives `probabilities` and `features`:
    whoever serves it elsewhere decodes and resizes as `spec.json`, which lies beside it, says.
    """
    spec = Spec.model_validate(row.spec)
    files = {
        "config.pbtxt": _config(name, spec).encode(),
        "labels.txt": "".join(f"{_one_line(label)}\n" for label in spec.labels).encode(),
        f"{row.version}/model.onnx": predictions.composed(storage, row.prefix, spec),
        f"{row.version}/spec.json": json.dumps(row.spec, ensure_ascii=False, indent=2).encode(),
    }
    buffer = io.BytesIO()
    # Weights do not get smaller by deflating them.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(f"{name}/{path}", EPOCH), content)
    return buffer.getvalue()


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
