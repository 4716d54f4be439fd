"""Judges a bundle from outside in a process of its own.

`python -m app.serving.admission_child FOLDER MEMORY_BYTES SECONDS`. It prints one JSON line: what `Checks` has, or
`{"code": CODE, "detail": WORDS}`.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx  # noqa: F401  (before the limits, which are on top of what imports take)
import onnxruntime  # noqa: F401
import pyarrow.parquet  # noqa: F401

from app.artifact import bundle
from app.confinement import confine
from app.errors import BadRequest
from app.serving import admission

MAX_WORDS = 2000


def main() -> None:
    """Looks, answers."""
    folder, memory_bytes, seconds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    confine(memory_bytes, seconds)
    sys.stdout.write(json.dumps(_answer(folder)) + "\n")


def _answer(folder: Path) -> dict[str, Any]:
    try:
        return asdict(admission.judge(folder, bundle.read(folder)))
    except BadRequest as error:
        return {"code": error.code, "detail": error.detail[:MAX_WORDS]}
    except MemoryError:
        return {
            "code": "import_too_costly",
            "detail": "expected a bundle that fits into memory; found one that does not; send a smaller one",
        }


if __name__ == "__main__":
    main()
