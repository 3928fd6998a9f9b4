"""Values that are read from disk when they are asked for, and not kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


class OnDemand(Mapping):
    """A mapping of names to values that are read anew each time they are asked for.

    >>> read = OnDemand()
    >>> read.add("answer", lambda: 42)
    >>> "answer" in read, read["answer"], len(read)
    (True, 42, 1)
    """

    def __init__(self):
        self._readers: dict[Any, Callable[[], Any]] = {}

    def add(self, name: Any, read: Callable[[], Any]) -> None:
        """Name a value and how it is read."""
        self._readers[name] = read

    def __getitem__(self, name: Any) -> Any:
        return self._readers[name]()

    def __iter__(self) -> Iterator:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def __contains__(self, name: object) -> bool:
        return name in self._readers
