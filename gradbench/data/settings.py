"""Where data sets are, and the fault of not having one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from gradbench.errors import GradbenchError


class MissingData(GradbenchError):
    """Images that are not here, or are of no use; a challenge becomes a row without numbers."""


@dataclass(frozen=True)
class DataSettings:
    """Where data sets are and what may be done to get them.

    Attributes:
        root: folder of all data sets.
        download: whether sets with a known checksum may be downloaded; the environment variable
            GRADBENCH_OFFLINE=1 forbids it.
        workers: threads that decode image files.
    """

    root: Path
    download: bool = True
    workers: int = 2

    def __post_init__(self):
        object.__setattr__(self, "root", Path(self.root).expanduser())

    @property
    def online(self) -> bool:
        """Whether downloads are allowed."""
        return self.download and os.environ.get("GRADBENCH_OFFLINE", "0") in ("", "0")
