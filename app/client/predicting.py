"""What finished models are asked: predictions, features, one more class. Images go as they are."""

import base64
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from app.client.wire import ApiError, Json, Wire

NDJSON = "application/x-ndjson"
# Images in one request of lines, whose answer is read once all are sent: no more than the service takes on before any
# answer is read, or both would wait for each other.
WINDOW = 64
# Refusals of what there will be room for.
BUSY = frozenset({"overloaded", "rate_limited"})


class Predicting(Wire):
    """Images in requests and streams, and whole datasets as jobs."""

    def predict(self, model: str, images: Sequence[Path | bytes], **query: str | int | float) -> Json:
        """Predictions in the order of the images, in one request.

        `query`: version, alias, domain, precision, top_k, threshold, features, timeout.
        """
        with ExitStack() as stack:
            path = f"/models/{quote(model, safe='')}/predict"
            return self.call("POST", path, files=_files(images, stack), params=query)

    def predict_lines(self, model: str, images: Iterable[Path | bytes], **query: str | int | float) -> Iterator[Json]:
        """Predictions one by one, of any number of images; memory holds no more than `WINDOW` of them.

        Each has its `index`, and `problem` instead of a prediction where the image cannot be used. Images go in
        requests of `WINDOW` each; where there is no room for one behind the first, the service is asked again when it
        says. Each is answered by what the model means at that moment: name a `version` where all are to be of one.

        Args:
            model: its name.
            images: files, or their bytes.
            query: as of `predict`; `timeout` is of one request.

        Raises:
            ApiError: the service refused.
        """
        rest, first = iter(images), 0
        while window := list(islice(rest, WINDOW)):
            num_lines = 0
            for line in self._answered(model, window, is_patient=first > 0, **query):
                yield _placed(line, first)
                num_lines += 1
            if num_lines != len(window):
                # The last one says why the service took no more.
                return
            first += len(window)

    def _answered(
        self, model: str, images: Sequence[Path | bytes], *, is_patient: bool, **query: str | int | float
    ) -> Iterator[Json]:
        """The lines of one request."""
        headers = {"Content-Type": NDJSON, "Accept": NDJSON}
        path = f"/models/{quote(model, safe='')}/predict"
        while True:
            try:
                yield from self.lines("POST", path, content=map(_line, images), headers=headers, params=query)
                return
            except ApiError as error:
                if not is_patient or error.code not in BUSY:
                    raise
                time.sleep(error.problem.get("retry_after_seconds", 1))

    def predict_dataset(
        self, dataset_id: str, model: str, *, idempotency_key: str | None = None, **fields: Any
    ) -> Json:
        """Queues predictions over all images of a stored dataset; `wait_job`, then `download_predictions`.

        `fields` are the body's others: version or alias, domain, splits, top_k, features, format.
        """
        return self._predict_all(model, idempotency_key, dataset=dataset_id, **fields)

    def predict_upload(self, upload_id: str, model: str, *, idempotency_key: str | None = None, **fields: Any) -> Json:
        """Queues predictions over all images of a complete upload, which is used up; else as `predict_dataset`."""
        return self._predict_all(model, idempotency_key, upload_id=upload_id, **fields)

    def _predict_all(self, model: str, idempotency_key: str | None, **fields: Any) -> Json:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self.call("POST", "/jobs", json={"kind": "predict", "model": model, **fields}, headers=headers)

    def download_predictions(self, job_id: str, target: Path) -> Path:
        """The file of a job that has succeeded: Parquet or JSONL, as the job was asked for."""
        return self.download(f"/jobs/{quote(job_id, safe='')}/predictions", target)

    def embed(self, model: str, images: Sequence[Path | bytes], **query: str | int | float) -> Json:
        """Features in the order of the images; `query`: version, alias, domain, precision, timeout."""
        with ExitStack() as stack:
            path = f"/models/{quote(model, safe='')}/embed"
            return self.call("POST", path, files=_files(images, stack), params=query)

    def add_class(
        self,
        model: str,
        label: str,
        images: Sequence[Path | bytes],
        *,
        idempotency_key: str | None = None,
        **query: str | int,
    ) -> Json:
        """Adds a class to a model from a few images, as a new version; `query`: version or alias to add it to."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        with ExitStack() as stack:
            path = f"/models/{quote(model, safe='')}/classes"
            return self.call(
                "POST", path, files=_files(images, stack), data={"label": label}, params=query, headers=headers
            )


def _files(images: Sequence[Path | bytes], stack: ExitStack) -> list[Any]:
    """Images as form fields; files are closed with the stack."""
    return [
        ("file", (str(index), image if isinstance(image, bytes) else stack.enter_context(image.open("rb"))))
        for index, image in enumerate(images)
    ]


def _line(image: Path | bytes) -> bytes:
    data = image if isinstance(image, bytes) else image.read_bytes()
    return b'{"b64": "' + base64.b64encode(data) + b'"}\n'


def _placed(line: Json, first: int) -> Json:
    """The line of an image whose request began with that one of all: it is named by its place among all of them."""
    index = first + line["index"]
    if "problem" not in line:
        return line | {"index": index}
    problem = line["problem"]
    detail = problem["detail"].removeprefix(f"line {line['index'] + 1}: ")
    return line | {"index": index, "problem": problem | {"index": index, "detail": detail}}
