"""What of a data set can be downloaded, and the other ways to have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradbench.data.settings import DataSettings, MissingData
from gradbench.errors import GradbenchError

UNKNOWN = "no download with a checksum is known"


class Downloads:
    """The part of a data set that knows its archives; see `dataset.Dataset`.

    Attributes:
        name: of the set.
        archives: downloads with `url`, `md5` or `sha256`, folder `to` and the `splits` they hold.
        terms: licence in a line, or how the images can be had.
    """

    name: str
    terms: str
    archives: Sequence[Mapping[str, Any]]

    def downloads(self, split: str) -> list[Mapping[str, Any]]:
        """Return the archives that hold a split, empty where no download is known."""
        return [a for a in self.archives if split in a.get("splits", [split])]

    def checksums(self, split: str, settings: DataSettings) -> dict[Path, tuple[str, str]]:
        """Return published files of a split that are here and have a known checksum.

        Returns:
            path -> (`md5` or `sha256`, checksum).
        """
        from gradbench.data.download import place

        files = ((place(a, settings.root), a) for a in self.downloads(split))
        kinds = ((path, "sha256" if "sha256" in a else "md5", a) for path, a in files)
        return {path: (kind, a[kind]) for path, kind, a in kinds if kind in a and path.is_file()}

    def may_fetch(self, split: str, settings: DataSettings, among: Sequence[str] = ()) -> None:
        """Raise the error of a split that cannot be downloaded; see `fetch`."""
        how = None
        if not self.downloads(split):
            how = UNKNOWN
        elif not settings.online:
            how = "allow its download (data.download=true, GRADBENCH_OFFLINE not set)"
        if how:
            raise MissingData(self._ways(among or [split], settings, how))

    def fetch(self, split: str, settings: DataSettings, among: Sequence[str] = ()) -> None:
        """Download the published files of a split, unless they are here.

        Args:
            split: to be had.
            settings: where to put it.
            among: splits that would do as well, for the message of a fault.

        Raises:
            MissingData: if no download is known or allowed, or it fails; names the other ways.
        """
        self.may_fetch(split, settings, among)
        from gradbench.data.download import alone, install

        try:
            with alone(settings.root / f".{self.name}.downloading"):
                if self.original(split, settings) is not None:
                    return  # another process brought it meanwhile
                for archive in self.downloads(split):
                    install(archive, settings.root)
        except GradbenchError as fault:
            how = f"have it downloaded, which failed: {fault}"
            raise MissingData(self._ways(among or [split], settings, how)) from fault
        if self.original(split, settings) is None:
            raise GradbenchError(
                f"the download of {self.name} did not bring {self.layout(split)} to {settings.root}"
            )

    def _download(self, splits: Sequence[str], settings: DataSettings) -> str:
        """Download the first split that can be had and return it."""
        split = next((s for s in splits if self.downloads(s)), splits[0])
        self.fetch(split, settings, splits)
        return split

    def _ways(self, splits: Sequence[str], settings: DataSettings, download: str) -> str:
        ways = ["put arrays at " + " or ".join(str(self._npz(split, settings)) for split in splits)]
        if layout := self.layout(splits[0]):
            ways.append(f"put the published files at {settings.root / layout}")
        if download == UNKNOWN:
            terms = f" ({self.terms})" if self.terms else ""
            return f"{self.name} is not on this machine: {', or '.join(ways)}; {download}{terms}"
        return f"{self.name} is not on this machine: {', or '.join([*ways, download])}"
