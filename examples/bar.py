"""A progress bar: one line that redraws itself on a terminal, a line now and then anywhere else."""

import sys
from typing import TextIO

from app.client import Progress

WIDTH = 28
LINE_EVERY = 0.2


class Bar:
    """Shows one job's progress; pass its `show` as `on_progress`."""

    def __init__(self, title: str, out: TextIO = sys.stdout) -> None:
        self._title, self._out, self._live = title, out, out.isatty()
        self._last: tuple[str, float] = ("", -1.0)

    def show(self, progress: Progress) -> None:
        """Draws the latest progress."""
        if self._live:
            filled = round(progress.fraction * WIDTH)
            eta = f" about {progress.eta_seconds:.0f} s left" if progress.eta_seconds else ""
            bar = "#" * filled + "-" * (WIDTH - filled)
            self._out.write(f"\r\033[K{self._title} [{bar}] {progress.fraction:4.0%} {progress.stage}{eta}")
            self._out.flush()
        elif progress.stage != self._last[0] or progress.fraction >= self._last[1] + LINE_EVERY:
            self._out.write(f"{self._title} {progress.fraction:4.0%} {progress.stage}\n")
            self._out.flush()
        else:
            return
        self._last = (progress.stage, progress.fraction)

    def say(self, text: str) -> None:
        """Writes a line of its own above the bar."""
        self._out.write(f"\r\033[K{text}\n" if self._live else f"{text}\n")
        self._out.flush()

    def close(self) -> None:
        """Takes the bar off the terminal."""
        if self._live:
            self._out.write("\r\033[K")
            self._out.flush()
