"""What it took to get some features, and what one image takes by that."""

from __future__ import annotations

from dataclasses import dataclass

# So many tell the pace of one, unless reading those that were cached took a part of the time that shows.
TIMED_IMAGES, TIMED_SHARE = 32, 0.1


@dataclass(frozen=True, slots=True)
class Extraction:
    """What it took to get some features."""

    num_cached: int
    num_extracted: int
    seconds: float

    def __add__(self, other: Extraction) -> Extraction:
        return Extraction(
            self.num_cached + other.num_cached,
            self.num_extracted + other.num_extracted,
            self.seconds + other.seconds,
        )

    @property
    def image_seconds(self) -> float | None:
        """To decode an image and pass it through; None where too few were to tell it."""
        if self.num_extracted < max(TIMED_IMAGES, TIMED_SHARE * self.num_cached):
            return None
        return self.seconds / self.num_extracted


# Where sums begin.
NOTHING = Extraction(0, 0, 0.0)
