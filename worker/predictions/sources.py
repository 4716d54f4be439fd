"""Where the images of a predict job come from: a stored dataset, or an upload that is opened for this job alone.

An upload goes the way of ingestion: a child of its own opens it, others decode each image before anything else does
(decision 0029), within the same limits. What differs is the end: no labels are read, every image has its row, those
that cannot be used as well, and nothing but predictions is kept.

Shape legend: N images.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from app.artifact import arrow
from app.errors import BadImage, JobFailure
from worker import transfer
from worker.attempt.context import RunContext
from worker.contract.task import Rows
from worker.data import labels
from worker.data.decoding import Decoders
from worker.data.findings import PROBLEMS
from worker.data.limits import Limits
from worker.data.problems import Problem, Problems, Rejected
from worker.data.reading import Reader
from worker.data.records import Records
from worker.data.samples import Index, empty_index, iter_images
from worker.data.splits import NONE
from worker.data.spool import Spool
from worker.predictions import sample_table

# Of the job's progress, before an upload is read, and behind it.
LOAD_SHARE, READ_SHARE = 0.01, 0.3
# Findings about other things than images, as lines of the job's log.
NUM_TOLD = 50

Image = bytes | BadImage


@dataclass(frozen=True, slots=True)
class Source:
    """The images of one job.

    Args:
        index: what is told of each.
        rows: of the index, in the order of the job's file.
        images: of some of the rows, in their order: encoded, or what is wrong with one.
        share_before: of the job's progress, when all this is known.
    """

    index: Index
    rows: Rows
    images: Callable[[Rows], Iterator[tuple[int, Image]]]
    share_before: float


@contextmanager
def opened(context: RunContext, num_known: int) -> Iterator[Source]:
    """The job's images, for as long as the block lasts.

    Args:
        context: of the attempt.
        num_known: rows that were predicted before; nobody asks for their images.

    Raises:
        JobFailure: dataset_invalid: the dataset was deleted, or has no image in the splits; the upload cannot be read,
            or has no image.
        Yielded: the worker shuts down while the upload is read.
    """
    if "archive" in context.document.inputs:
        with Spool(context.scratch / "members") as spool, Records(context.scratch) as records:
            yield _upload(context, records, spool, num_known)
        return
    index = transfer.load(context, context.document.dataset)
    rows = sample_table.wanted(index, context.document.inputs["request"]["splits"])

    def stored(wanted: Rows) -> Iterator[tuple[int, Image]]:
        return iter_images(index, wanted, lambda name: context.storage.fetch(f"{index.prefix}/{name}"))

    yield Source(index, rows, stored, 0.02)


def _upload(context: RunContext, records: Records, spool: Spool, num_known: int) -> Source:
    """Reads the upload into the spool."""
    problems = Problems()
    bad = _read(context, records, problems, spool, num_known)
    told = set(map(id, bad.values()))
    _tell(context, [problem for problem in problems if id(problem) not in told])
    if not len(records) and not problems.has_errors:
        problems.add("nothing_decodable", num=0)
    if problems.failure is not None:
        raise JobFailure("dataset_invalid", problems.failure[1])
    is_good_N = records.is_good

    def spooled(wanted: Rows) -> Iterator[tuple[int, Image]]:
        for row, found in zip(wanted.tolist(), records.each(wanted), strict=True):
            yield row, spool.read(found.offset, found.length) if is_good_N[row] else _unusable(bad.get(row))

    return Source(_index(records), np.arange(len(records)), spooled, READ_SHARE)


def _read(
    context: RunContext, records: Records, problems: Problems, spool: Spool, num_known: int
) -> dict[int, Problem]:
    """What is wrong with images, by their row. All else that is wrong is among the problems."""
    settings, inputs, reporter = context.settings, context.document.inputs, context.reporter
    limits = Limits(max_pixels=settings.max_image_pixels, num_processes=settings.num_compute_threads)

    def told(share: float) -> None:
        reporter.progress(LOAD_SHARE + (READ_SHARE - LOAD_SHARE) * share, "read")
        reporter.check_yield()

    with Decoders(spool.fd, limits) as decoders:
        reader = Reader(records, spool, decoders, limits, problems, context.scratch, told)
        try:
            reader.read_images(context.storage.fetch(inputs["archive"]), inputs["filename"], num_known)
        except Rejected:
            # Its finding is an error among the problems.
            return reader.bad
    return reader.bad


def _tell(context: RunContext, problems: list[Problem]) -> None:
    for problem in problems[:NUM_TOLD]:
        where = f"{problem.path}: " if problem.path else ""
        context.reporter.log(f"{where}{problem.message}", "warning", code=problem.code)
    if len(problems) > NUM_TOLD:
        context.reporter.log(f"{len(problems) - NUM_TOLD} more findings like these", "warning")


def _unusable(problem: Problem | None) -> BadImage:
    if problem is None:
        return BadImage("expected fewer problems; found this one behind so many that it was not written down")
    # What decoders say is whole: it is what `predict` says of the same image.
    is_whole = PROBLEMS[problem.code].message == "{found}"
    return BadImage(problem.message if is_whole else f"{problem.message}; {problem.fix}", code=problem.code)


def _index(records: Records) -> Index:
    """Of what was stored, with the ids that a dataset of the same upload would have; of the rest, names alone."""
    num, paths = len(records), list[str]()
    ids_N, sha256_N = np.zeros(num, "S22"), np.zeros(num, "S64")
    for row, one in enumerate(records.each(range(num))):
        paths.append(one.path)
        if one.length:
            ids_N[row], sha256_N[row] = one.id, one.sha256.hex()
    return replace(
        empty_index(),
        ids=ids_N,
        paths=arrow.texts(paths),
        columns=(labels.unlabelled(num),),
        split=np.full(num, NONE, np.int8),
        sha256=sha256_N,
    )
