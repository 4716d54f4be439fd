"""Features of a stored dataset under a backbone, as one file: load -> features chunk by chunk -> write.

They are those of the feature cache, so a transfer on the same backbone finds them there, and an attempt that was killed
loses one chunk at most.
"""

import json
import time
from typing import Any

import numpy as np
import pyarrow as pa

from app.artifact import arrow
from worker import transfer
from worker.attempt import job_file
from worker.attempt.context import RunContext
from worker.backbones import features
from worker.backbones.prepared import Prepared
from worker.contract.task import Float, Rows
from worker.data.samples import Index
from worker.predictions import sample_table
from worker.prepare import sources

CHUNK_ROWS = 2048


def run(context: RunContext) -> dict[str, Any]:
    """Extracts, and stores the file.

    Returns:
        `file`, its key in storage, and `metrics`.

    Raises:
        JobFailure: dataset_invalid, no image in the splits; weights_unavailable.
    """
    request, reporter = context.document.inputs["request"], context.reporter
    reporter.progress(0.01, "load")
    index = transfer.load(context, context.document.dataset)
    rows = sample_table.wanted(index, request["splits"])
    (backbone,) = sources.open_backbones(context)
    began, num_cached = time.monotonic(), 0
    path = context.scratch / f"features.{request['format']}"
    schema = _schema(context, index, backbone)
    with job_file.WRITERS[request["format"]](path, schema) as write:
        for first in range(0, len(rows), CHUNK_ROWS):
            chunk = rows[first : first + CHUNK_ROWS]
            share = (0.02 + 0.95 * first / len(rows), 0.02 + 0.95 * (first + len(chunk)) / len(rows))
            found, extraction = features.pooled(context, index, chunk, backbone, ("features", *share))
            num_cached += extraction.num_cached
            write(_table(schema, index, chunk, found))
            reporter.metric(f"{first + len(chunk)} of {len(rows)} images", num_samples=first + len(chunk))
            reporter.check_yield()
    reporter.progress(0.98, "write")
    seconds = time.monotonic() - began
    reporter.log(
        f"features of {len(rows)} images: {num_cached} cached, {len(rows) - num_cached} extracted in {seconds:.1f} s",
        num_cached=num_cached,
        num_extracted=len(rows) - num_cached,
        seconds=round(seconds, 3),
    )
    metrics = {
        "num_samples": len(rows),
        "num_cached": num_cached,
        "num_extracted": len(rows) - num_cached,
        "feature_dim": backbone.feature_dim,
    }
    return {"file": job_file.store(context, path), "metrics": metrics}


def _schema(context: RunContext, index: Index, backbone: Prepared) -> pa.Schema:
    """Names and types of the columns; what made the features stands beside them."""
    made = {
        "backbone": backbone.name,
        "digest": backbone.digest,
        "preprocess": backbone.preprocess.digest,
        "precision": features.precision(context),
    }
    columns = [*sample_table.fields(index), ("features", pa.list_(pa.float32(), backbone.feature_dim))]
    return pa.schema(columns, metadata={"graft": json.dumps(made)})


def _table(schema: pa.Schema, index: Index, rows: Rows, features_ND: Float) -> pa.Table:
    values = arrow.numbers(np.ascontiguousarray(features_ND, np.float32).ravel())
    columns = sample_table.arrays(index, rows)
    columns["features"] = pa.FixedSizeListArray.from_arrays(values, features_ND.shape[1])
    return pa.table(columns).select(schema.names).cast(schema)
