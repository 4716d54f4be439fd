"""Which names an upload has: 20 to 28 bytes for each, where a dict of them takes over a hundred."""

from array import array

_FREE = -1


class Names:
    """The first row of each name: an open hash table. Names are told apart by hashes of 64 bits."""

    def __init__(self) -> None:
        self._rows = array("i", [_FREE]) * 1024
        self._hashes: array[int] = array("q")
        self._firsts: array[int] = array("i")

    def first(self, name: str, row: int) -> int:
        """The row that the name came with first: `row`, where it is new."""
        key = hash(name)
        place = self._place(key)
        if self._rows[place] == _FREE:
            self._rows[place] = len(self._hashes)
            self._hashes.append(key)
            self._firsts.append(row)
            if 2 * len(self._hashes) > len(self._rows):
                self._grow()
            return row
        return self._firsts[self._rows[place]]

    def __len__(self) -> int:
        """How many different names there are."""
        return len(self._hashes)

    def get(self, name: str) -> int | None:
        """The row that the name came with first; None where it never came."""
        number = self._rows[self._place(hash(name))]
        return None if number == _FREE else self._firsts[number]

    def _place(self, key: int) -> int:
        """Where the key stands, or the free place where it belongs."""
        mask = len(self._rows) - 1
        place = key & mask
        while (number := self._rows[place]) != _FREE and self._hashes[number] != key:
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        self._rows = array("i", [_FREE]) * (2 * len(self._rows))
        for number, key in enumerate(self._hashes):
            self._rows[self._place(key)] = number
