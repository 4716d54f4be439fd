"""What a child has said: what of it waits to be stored, and how it ended."""

from typing import Any

from worker.supervision.runner_process import MAX_BATCH

Message = dict[str, Any]


class Said:
    """Of one attempt."""

    def __init__(self) -> None:
        self.events: list[Message] = []
        self.progress: Message | None = None
        # The message with its result or its failure: final as soon as it is said.
        self.end: Message | None = None

    @property
    def result(self) -> Message | None:
        """What it has made; None unless it succeeded."""
        found: Message | None = (self.end or {}).get("result")
        return found

    @property
    def waits(self) -> bool:
        """Whether something is to be stored."""
        return bool(self.events or self.progress)

    @property
    def is_full(self) -> bool:
        """Whether so much is to be stored that no more is taken."""
        return len(self.events) >= MAX_BATCH

    def note(self, batch: list[Message]) -> None:
        """Remembers all events, the last progress, and the end."""
        self.events += [message["event"] for message in batch if "event" in message]
        said = (message["progress"] for message in reversed(batch) if "progress" in message)
        self.progress = next(said, self.progress)
        self.end = next((message for message in batch if message.keys() & {"result", "failure"}), self.end)

    def stored(self) -> None:
        """Forgets what waited."""
        self.events, self.progress = [], None
