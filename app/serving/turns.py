"""A line in which projects take turns, so that one that brings much does not stand before all others."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """What one project puts in comes out in its order. Not safe for threads: the engine's lock holds it."""

    def __init__(self) -> None:
        # The project whose turn it is comes first; those without anything are not there.
        self._items: OrderedDict[str, deque[T]] = OrderedDict()

    def __iter__(self) -> Iterator[T]:
        """All that waits, not in the order in which it comes out."""
        return (item for items in self._items.values() for item in items)

    def __bool__(self) -> bool:
        return bool(self._items)

    def __contains__(self, item: T) -> bool:
        return any(item in items for items in self._items.values())

    def put(self, project: str, item: T) -> None:
        """The last one of its project."""
        self._items.setdefault(project, deque()).append(item)

    def take(self) -> T:
        """The first one of the project whose turn it is, which comes last then.

        Raises:
            KeyError: nothing waits.
        """
        project, items = self._items.popitem(last=False)
        item = items.popleft()
        if items:
            self._items[project] = items
        return item
