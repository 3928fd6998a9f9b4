"""Downloads that resume and are checked, and archives that are unpacked whole or not at all."""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradbench.errors import GradbenchError
from gradbench.support.progress import Progress, step

CHUNK = 2**20  # bytes received at a time, and the unit of the progress shown
TIMEOUT = 30.0  # seconds without an answer after which a server counts as gone
PACKED = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")


def download_archive(archive: Mapping[str, Any], root: Path) -> None:
    """Download an archive (`Dataset.archives`) and put its content under the data root.

    `inner` is a pattern of `.gz` files in it that are to be unpacked into its folder `to` as well.
    """
    path = archive_path(archive, root)
    folder = path.parent
    download_file(archive["url"], path, md5=archive.get("md5"), sha256=archive.get("sha256"))
    if path.name.endswith((*PACKED, ".gz")):
        unpack(path, folder)
        if "inner" in archive:
            for member in sorted(folder.rglob("*.gz")):
                if fnmatch.fnmatch(member.relative_to(folder).as_posix(), archive["inner"]):
                    unpack(member, folder)
        path.unlink()


def archive_path(archive: Mapping[str, Any], root: Path) -> Path:
    """Return where the file of an archive goes; one that is unpacked does not stay there."""
    return root / archive.get("to", ".") / archive["url"].split("?")[0].rsplit("/", 1)[1]


def download_file(url: str, path: Path, md5: str | None = None, sha256: str | None = None) -> None:
    """Download a file, going on where an earlier attempt stopped, and check it.

    The bytes go to `<path>.part`, which becomes `path` once its checksum is right; a file at
    `path` with the right checksum is left alone.
    """
    kind, wanted = ("sha256", sha256) if sha256 else ("md5", md5)
    if not wanted:
        raise GradbenchError(f"{url} has no known checksum and is not downloaded")
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and file_checksum(path, kind) == wanted:
            return
        resumed = part.is_file()
        _receive(url, part)
        checksum = file_checksum(part, kind)
        if resumed and checksum != wanted:
            part.unlink()  # it began as another file
            _receive(url, part)
            checksum = file_checksum(part, kind)
        if checksum != wanted:
            part.unlink()
            raise GradbenchError(
                f"{url} was not kept: its {kind} is {checksum} in place of {wanted}"
            )
        with open(part, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as fault:
        raise GradbenchError(f"{url} could not be written to {path}: {fault}") from fault


def _receive(url: str, part: Path) -> None:
    """Append to a partial file until the server has no more; try again while bytes arrive."""
    import http.client
    import urllib.error

    while True:
        before = part.stat().st_size if part.is_file() else 0
        try:
            return _append(url, part, before)
        except urllib.error.HTTPError as fault:
            if fault.code == 416:  # nothing is left to send: the checksum will tell
                return None
            reason = f"HTTP {fault.code} {fault.reason}"
        except (OSError, http.client.HTTPException) as fault:
            reason = str(getattr(fault, "reason", fault)) or type(fault).__name__
        arrived = part.stat().st_size if part.is_file() else 0
        if arrived <= before:
            kept = f"; {arrived:,} bytes came and are kept: trying again goes on there"
            raise GradbenchError(
                f"{url} could not be downloaded: {reason}{kept if arrived else ''}"
            )


def _append(url: str, part: Path, begun: int) -> None:
    import urllib.request

    headers = {"User-Agent": "gradbench"} | ({"Range": f"bytes={begun}-"} if begun else {})
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        ranged = answer.headers.get("Content-Range", "")
        if answer.status != 206 or not ranged.startswith(f"bytes {begun}-"):
            begun = 0  # the server sends it from its first byte
        size = answer.headers.get("Content-Length")
        total = begun + int(size or 0)
        with (
            open(part, "ab" if begun else "wb") as stream,
            Progress(f"downloading {part.stem}", total // CHUNK, "MiB", begun // CHUNK) as progress,
        ):
            done = begun
            while block := answer.read(CHUNK):
                stream.write(block)
                progress.advance((done + len(block)) // CHUNK - done // CHUNK)
                done += len(block)
        if size and done < total:
            raise OSError(f"the connection ended after {done} of {total} bytes")


def file_checksum(path: Path, kind: str) -> str:
    """Return the checksum of a file; the kind is `md5` or `sha256`."""
    with step(f"checksum of {path.name}"), open(path, "rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar, zip or gz file; nothing appears in the folder unless all of it unpacks.

    No member is written outside the folder: a tar file with such a one, or with a device, is
    refused, a zip file's is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / f".{archive.name}.unpacking"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        with step(f"unpacking {archive.name}"):
            if archive.name.endswith(PACKED):
                tar = {} if archive.suffix == ".zip" else {"filter": "data"}
                shutil.unpack_archive(archive, work, **tar)
            else:
                with gzip.open(archive) as source, open(work / archive.stem, "wb") as target:
                    shutil.copyfileobj(source, target)
            _merge(work, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as fault:
        raise GradbenchError(f"{archive} could not be unpacked: {fault}") from fault
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _merge(source: Path, target: Path) -> None:
    """Move everything in a folder to another one, into folders that are there already."""
    for entry in source.iterdir():
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            _merge(entry, place)
        else:
            os.replace(entry, place)  # a new folder at once, so that it is never there in part
