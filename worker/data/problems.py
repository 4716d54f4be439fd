"""The list that collects what is wrong with an upload; `findings` has the table of codes."""

from collections.abc import Iterator
from dataclasses import dataclass

from app import texts
from worker.data.findings import PROBLEMS, Severity

# Far above what anybody reads; a bound on memory for an upload made to have a million findings.
MAX_LISTED = 100_000
# And for one that has them about names of a megabyte.
MAX_PATH_CHARS, MAX_MESSAGE_CHARS = 1000, 2000
# Of all that are listed, as UTF-8: they go through a pipe and into the database at once.
MAX_TEXT_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding: what it is about (`path`, empty for the whole upload), what was expected and found, what to do."""

    severity: Severity
    code: str
    path: str
    message: str
    fix: str


class Rejected(Exception):
    """The upload cannot be read any further; the finding is already in the list of problems."""


class Problems:
    """The findings of one ingestion, in the order found."""

    def __init__(self) -> None:
        self._listed: list[Problem] = []
        self._num_text_bytes, self._num_unlisted = 0, 0
        # Of errors only the first is told; it need not be listed.
        self._first_error: Problem | None = None
        self._num_errors = 0
        # The one that was added last; None where it is not listed.
        self.last: Problem | None = None

    def add(self, code: str, path: str = "", **found: object) -> None:
        """Notes one finding; `found` fills the code's message."""
        text = PROBLEMS[code]
        message = _shown(text.message.format(**found), MAX_MESSAGE_CHARS)
        problem = Problem(text.severity, code, _shown(path, MAX_PATH_CHARS), message, text.fix)
        if text.severity == "error":
            self._num_errors += 1
            self._first_error = self._first_error or problem
        self.last = problem if self._takes(problem) else None
        if self.last is None:
            self._num_unlisted += 1
        else:
            self._listed.append(problem)

    def reject(self, code: str, path: str = "", **found: object) -> Rejected:
        """Notes a finding that ends the ingestion; to be raised by the caller."""
        self.add(code, path, **found)
        return Rejected(code)

    @property
    def has_errors(self) -> bool:
        """Whether the dataset is invalid."""
        return bool(self._num_errors)

    @property
    def failure(self) -> tuple[str, str] | None:
        """Code and message of the first error, with the number of further ones."""
        if self._first_error is None:
            return None
        first, more = self._first_error, self._num_errors - 1
        where = f"{first.path}: " if first.path else ""
        also = f" ({more} more errors)" if more > 1 else " (1 more error)" if more else ""
        return first.code, f"{where}{first.message}; {first.fix}{also}"

    def __iter__(self) -> Iterator[Problem]:
        yield from self._listed
        if self._num_unlisted:
            text = PROBLEMS["more_problems"]
            yield Problem(text.severity, "more_problems", "", text.message.format(num=self._num_unlisted), text.fix)

    def _takes(self, problem: Problem) -> bool:
        """Counts it, and whether the list takes it; behind one that it did not take it takes none, however short."""
        self._num_text_bytes += len(problem.path.encode()) + len(problem.message.encode())
        is_full = len(self._listed) >= MAX_LISTED or self._num_text_bytes > MAX_TEXT_BYTES
        return not (self._num_unlisted or is_full)


def _shown(text: str, most: int) -> str:
    """The beginning of a text. Names come as the upload has them, and JSON can spell what nothing can store."""
    return texts.storable(text[:most])[:most]
