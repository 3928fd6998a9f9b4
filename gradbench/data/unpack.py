"""Archives that cannot write outside their folder."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from gradbench.errors import GradbenchError
from gradbench.support.progress import Progress

TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVES = (*TAR, ".zip", ".gz")
"""Endings of the files that `extract` unpacks."""


def extract(archive: Path, folder: Path) -> None:
    """Unpack a tar, zip or gz file; nothing appears in the folder unless all of it unpacks.

    Raises:
        GradbenchError: if the archive is damaged, or a member has an absolute path, climbs out of
            the folder with `..`, or is a link or device.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / f".{archive.name}.unpacking"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        if archive.name.endswith(TAR):
            _untar(archive, work)
        elif archive.name.endswith(".zip"):
            _unzip(archive, work)
        else:
            with gzip.open(archive) as source, open(work / archive.stem, "wb") as target:
                shutil.copyfileobj(source, target)
        _merge(work, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as fault:
        raise GradbenchError(f"{archive} could not be unpacked: {fault}") from fault
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _untar(archive: Path, work: Path) -> None:
    with tarfile.open(archive) as source:
        members = source.getmembers()
        with Progress(f"unpacking {archive.name}", len(members), "files") as progress:
            for member in members:
                _refuse(archive, member.name, not (member.isfile() or member.isdir()))
                source.extract(member, work, filter="data")
                progress.advance(1)


def _unzip(archive: Path, work: Path) -> None:
    with zipfile.ZipFile(archive) as source:
        members = source.infolist()
        with Progress(f"unpacking {archive.name}", len(members), "files") as progress:
            for member in members:
                _refuse(archive, member.filename, stat.S_ISLNK(member.external_attr >> 16))
                source.extract(member, work)
                progress.advance(1)


def _refuse(archive: Path, name: str, odd: bool) -> None:
    """Raise the error for a member that is no plain file or folder inside the archive."""
    path = PurePosixPath(name.replace("\\", "/"))
    if odd or path.is_absolute() or ".." in path.parts or ":" in (path.parts or ("",))[0]:
        raise GradbenchError(
            f"{archive} was not unpacked: its member '{name}' is a link or would leave the folder"
        )


def _merge(source: Path, target: Path) -> None:
    """Move everything in a folder to another one, into folders that are there already."""
    for entry in source.iterdir():
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            _merge(entry, place)
        else:
            os.replace(entry, place)
