"""What a model says of some samples, as rows of the file that a predict job makes.

Shape legend: N samples, G of them without a problem, C classes, K best ones, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.artifact import arrow
from app.errors import BadImage
from app.serving import best
from app.serving.call import Result
from worker.data.samples import Index
from worker.predictions import sample_table

Outcome = Result | BadImage
_SCORES = pa.list_(pa.struct([("label", pa.string()), ("score", pa.float32())]))
_PROBLEM = pa.struct([("code", pa.string()), ("detail", pa.string())])


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one job's file.

    Args:
        index: of the dataset.
        labels: of the model.
        request: of the job: model, version, domain, alignment, top_k, features.
    """

    index: Index
    labels: tuple[str, ...]
    request: dict[str, Any]

    @property
    def schema(self) -> pa.Schema:
        """Names and types, in their order."""
        fields = sample_table.fields(self.index)
        fields += [("predicted", pa.string()), ("score", pa.float32()), ("scores", _SCORES)]
        fields += [("model", pa.string()), ("version", pa.int32())]
        fields += [("domain", pa.string()), ("alignment", pa.string()), ("problem", _PROBLEM)]
        if self.request["features"]:
            fields.append(("features", pa.list_(pa.float32())))
        return pa.schema(fields)

    def table(self, rows: Sequence[int], outcomes: Sequence[Outcome]) -> pa.Table:
        """One row for each outcome; a bad image has `problem`, and null for all that the model would have said.

        Args:
            rows: of the index.
            outcomes: as many; each Result is that of one image.
        """
        arrays = sample_table.arrays(self.index, np.asarray(rows, np.int64))
        arrays |= self._said(outcomes)
        for name in ("model", "domain", "alignment"):
            value = self.request[name]
            arrays[name] = pa.nulls(len(rows), pa.string()) if value is None else arrow.texts([value] * len(rows))
        arrays["version"] = arrow.numbers(np.full(len(rows), self.request["version"], np.int32))
        return pa.table(arrays).select(self.schema.names).cast(self.schema)

    def _said(self, outcomes: Sequence[Outcome]) -> dict[str, pa.Array]:
        good = [one for one in outcomes if not isinstance(one, BadImage)]
        is_bad_N = np.array([isinstance(one, BadImage) for one in outcomes])
        probabilities_GC = np.concatenate([one.probabilities_NC for one in good] or [self._nothing(len(self.labels))])
        best_GK = best.order(probabilities_GC, self.request["top_k"])
        score_GK = np.take_along_axis(probabilities_GC, best_GK, axis=1)
        names = arrow.texts(self.labels)
        best_N, score_N = np.zeros(len(outcomes), np.int64), np.zeros(len(outcomes), np.float32)
        best_N[~is_bad_N], score_N[~is_bad_N] = best_GK[:, 0], score_GK[:, 0]
        pairs = {"label": names.take(arrow.numbers(best_GK.ravel())), "score": arrow.numbers(score_GK.ravel())}
        said = {
            "predicted": names.take(arrow.numbers(best_N, is_bad_N)),
            "score": arrow.numbers(score_N, is_bad_N),
            "scores": _each(arrow.structs(pairs), is_bad_N, best_GK.shape[1]),
            "problem": _problems(outcomes, is_bad_N),
        }
        if self.request["features"]:
            features_GD = np.concatenate([one.features_ND for one in good] or [self._nothing(1)])
            said["features"] = _each(arrow.numbers(features_GD.ravel()), is_bad_N, features_GD.shape[1])
        return said

    @staticmethod
    def _nothing(width: int) -> NDArray[np.float32]:
        return np.empty((0, width), np.float32)


def _each(values: pa.Array, is_bad_N: NDArray[np.bool_], width: int) -> pa.Array:
    """So many of the values for each good sample, null for each bad one."""
    return arrow.lists_of(np.concatenate([[0], np.cumsum(~is_bad_N * width)]), values, is_bad_N)


def _problems(outcomes: Sequence[Outcome], is_bad_N: NDArray[np.bool_]) -> pa.Array:
    told = [(one.code, one.detail) if isinstance(one, BadImage) else ("", "") for one in outcomes]
    fields = {name: arrow.texts(texts) for name, texts in zip(("code", "detail"), zip(*told, strict=True), strict=True)}
    return arrow.structs(fields, ~is_bad_N)
