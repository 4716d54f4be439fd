"""The list that collects what is wrong with an upload; `findings` has the table of codes."""

from collections.abc import Iterator
from dataclasses import dataclass

from app import texts
from worker.data.findings import PROBLEMS, Severity

# Far above what anybody reads; a bound on memory for an upload made to have a million findings.
MAX_LISTED = 100_000
# And for one that has them about names of a megabyte.
MAX_PATH_CHARS, MAX_MESSAGE_CHARS = 1000, 2000


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
        self._errors: list[Problem] = []
        self._num_unlisted = 0
        # The one that was added last; None where it is not listed.
        self.last: Problem | None = None

    def add(self, code: str, path: str = "", **found: object) -> None:
        """Notes one finding; `found` fills the code's message."""
        text = PROBLEMS[code]
        message = _shown(text.message.format(**found), MAX_MESSAGE_CHARS)
        problem = Problem(text.severity, code, _shown(path, MAX_PATH_CHARS), message, text.fix)
        if text.severity == "error" and len(self._errors) < MAX_LISTED:
            self._errors.append(problem)
        if len(self._listed) < MAX_LISTED:
            self._listed.append(problem)
            self.last = problem
        else:
            self._num_unlisted += 1
            self.last = None

    def reject(self, code: str, path: str = "", **found: object) -> Rejected:
        """Notes a finding that ends the ingestion; to be raised by the caller."""
        self.add(code, path, **found)
        return Rejected(code)

    @property
    def has_errors(self) -> bool:
        """Whether the dataset is invalid."""
        return bool(self._errors)

    @property
    def failure(self) -> tuple[str, str] | None:
        """Code and message of the first error, with the number of further ones."""
        if not self._errors:
            return None
        first, more = self._errors[0], len(self._errors) - 1
        where = f"{first.path}: " if first.path else ""
        also = f" ({more} more errors)" if more > 1 else " (1 more error)" if more else ""
        return first.code, f"{where}{first.message}; {first.fix}{also}"

    def __iter__(self) -> Iterator[Problem]:
        yield from self._listed
        if self._num_unlisted:
            text = PROBLEMS["more_problems"]
            yield Problem(text.severity, "more_problems", "", text.message.format(num=self._num_unlisted), text.fix)


def _shown(text: str, most: int) -> str:
    """The beginning of a text. Names come as the upload has them, and JSON can spell what nothing can store."""
    return texts.storable(text[:most])[:most]
