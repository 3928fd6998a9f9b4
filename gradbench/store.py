"""Products of the steps, kept by content: made once, verified when read, never half-written.

A product is a folder `<root>/<step>/<key>/` with a manifest `product.json` that lists its files
with their SHA-256. The key is the hash of the step's name and VERSION, its resolved configuration
and the content digests of its inputs; paths, times and the git commit are metadata. A product is
written beside its place, synced and renamed, under a lock that dies with its process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from msgspec import Struct
from safetensors import SafetensorError

from gradbench.errors import GradbenchError
from gradbench.support.files import Damaged, read_json
from gradbench.support.locks import file_lock
from gradbench.support.memory import PeakMemory
from gradbench.support.progress import say

MANIFEST = "product.json"


class Manifest(Struct):
    """Fields of a product's manifest without which its files cannot be checked."""

    files: dict[str, tuple[int, str]]
    about: dict[str, Any]
    sha256: str


@dataclass(frozen=True)
class Key:
    """The origin of a product: JSON-able configuration, and content digests of the inputs."""

    step: str
    """Also the folder of its products."""
    version: int
    """Raised when the step's output changes."""
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self):
        return hash(self.digest)

    @cached_property
    def digest(self) -> str:
        """The key itself: 40 hexadecimal digits."""
        content = [self.step, self.version, self.config, self.inputs]
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Product:
    """A finished product: its folder and what its manifest tells."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def about(self) -> Mapping[str, Any]:
        """The notes of the step about its product: times, counts, digests."""
        return self.manifest["about"]

    def path(self, name: str) -> Path:
        """Return the path of one of the product's files."""
        return self.folder / name


class Store:
    """A folder of products, made when the first one is written.

    Version and git commit of the code at work (`code`) are noted in every product that it makes.
    """

    def __init__(self, root: str | Path, code: Mapping[str, Any] | None = None):
        self.root = Path(root)
        self.code = dict(code or {})
        self.used: dict[Key, tuple[Product, bool]] = {}
        """Products that this object gave out, with their notes alone (a run may use thousands),
        and whether it made them itself."""
        self._reported: set[Key] = set()
        self._peaks = PeakMemory()

    @property
    def made(self) -> list[Key]:
        """Keys of the products that this object made, as opposed to found."""
        return [key for key, (_, made) in self.used.items() if made]

    def get(self, key: Key) -> Product | None:
        """Return a product if it is there and whole; a damaged one is reported once."""
        folder = self._folder(key)
        if not (folder / MANIFEST).is_file():
            return None
        if damage := find_damage(folder):
            if key not in self._reported:
                say(f"store: {key.step} {key.digest[:12]} is damaged ({damage}); it is made anew")
            self._reported.add(key)
            return None
        with contextlib.suppress(OSError):
            os.utime(folder / MANIFEST)  # last use, read by `prune`
        product = Product(folder, json.loads((folder / MANIFEST).read_text()))
        self.used.setdefault(key, (Product(folder, {"about": product.about}), False))
        return product

    def has(self, key: Key) -> bool:
        """Tell whether a product is there, without reading it."""
        return (self._folder(key) / MANIFEST).is_file()

    def make(self, key: Key, build: Callable[[Path, Path], Mapping[str, Any] | None]) -> Product:
        """Return the product of a key, building it where it is missing.

        Of several processes that ask for one key, one builds and the others wait.

        Args:
            key: of the product.
            build: called with an empty folder to fill and the path of a scratch folder which
                outlives a kill (for checkpoints; `build` makes it if it wants it); returns
                JSON-able notes for the manifest.

        Raises:
            GradbenchError: if the store cannot be written.
        """
        if product := self.get(key):
            return product
        with self.lock(f"{key.step}-{key.digest}", f"{key.step} {key.digest[:12]}"):
            if product := self.get(key):  # another process built it meanwhile
                return product
            folder = self._folder(key)
            part = folder.with_name(folder.name + ".part")
            scratch = folder.with_name(folder.name + ".scratch")
            with self._writing():
                # a damaged product goes under the lock alone: another process may have mended it
                shutil.rmtree(folder, ignore_errors=True)
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
            begun, peaks = time.time(), {}
            try:
                with self._writing():
                    with self._peaks.watch(peaks.update):
                        about = dict(build(part, scratch) or {})
                    about |= {**peaks, "seconds": round(time.time() - begun, 3)}
                    self._seal(key, part, about)
                    os.replace(part, folder)
                    _sync(folder.parent)
                    shutil.rmtree(scratch, ignore_errors=True)
            finally:
                shutil.rmtree(part, ignore_errors=True)
            product = Product(folder, json.loads((folder / MANIFEST).read_text()))
            self.used[key] = (Product(folder, {"about": product.about}), True)
            return product

    def products(self) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        """Yield (folder, manifest) of every product, by step and age; unreadable ones as {}."""
        for step in sorted(p for p in self.root.glob("*") if p.is_dir() and p.name != "locks"):
            # a sealed folder that was not renamed yet is no product
            folders = [
                p for p in step.iterdir() if p.suffix != ".part" and (p / MANIFEST).is_file()
            ]
            for folder in sorted(folders, key=lambda p: (p / MANIFEST).stat().st_mtime):
                try:
                    yield folder, read_json(folder / MANIFEST, Manifest)
                except Damaged:
                    yield folder, {}

    def leftovers(self) -> list[Path]:
        """Return folders that killed or running processes left: unfinished parts, checkpoints."""
        return sorted(p for end in ("part", "scratch") for p in self.root.glob(f"*/*.{end}"))

    @contextlib.contextmanager
    def lock(self, name: str, content: str) -> Iterator[None]:
        """Hold the store-wide lock of a file name; the operating system frees it with the process.

        What is made under it, `content`, is named to those who wait.
        """
        with contextlib.ExitStack() as stack:
            with self._writing():
                path = self.root / "locks" / f"{name}.lock"
                stack.enter_context(file_lock(path, f"makes {content}"))
            yield

    def _folder(self, key: Key) -> Path:
        return self.root / key.step / key.digest

    def _seal(self, key: Key, part: Path, about: Mapping[str, Any]) -> None:
        files = {}
        for path in sorted(p for p in part.rglob("*") if p.is_file()):
            files[path.relative_to(part).as_posix()] = [path.stat().st_size, file_digest(path)]
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())
        manifest = {
            "step": key.step,
            "version": key.version,
            "config": key.config,
            "inputs": key.inputs,
            "files": files,
            "about": about,
            "code": self.code,
            "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        manifest["sha256"] = _seal_of(manifest)
        with open(part / MANIFEST, "w") as stream:
            json.dump(manifest, stream, indent=1, sort_keys=True)
            stream.flush()
            os.fsync(stream.fileno())
        _sync(part)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Put into one sentence that the store cannot be written."""
        try:
            yield
        except (OSError, SafetensorError) as fault:
            if isinstance(fault, OSError):
                name = os.path.abspath(os.fsdecode(fault.filename or self.root))
                ours = fault.errno and Path(name).is_relative_to(os.path.abspath(self.root))
            else:
                ours = "os error" in str(fault)
            if not ours:
                raise  # of a builder, about a file of the user's or an image in it
            raise GradbenchError(
                f"the store at {self.root} cannot be written "
                f"({getattr(fault, 'strerror', None) or fault}): make room or rights there, "
                "or name another folder with store=DIR; finished products are kept"
            ) from fault


def find_damage(folder: Path) -> str | None:
    """Return what is wrong with a product's files, None if nothing is."""
    try:
        manifest = read_json(folder / MANIFEST, Manifest)
    except Damaged:
        return "its manifest cannot be read"
    if manifest["sha256"] != _seal_of(manifest):
        return "its manifest has another checksum"
    for name, (size, sha) in manifest["files"].items():
        path = folder / name
        if not os.path.isfile(path):
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        try:
            same = file_digest(path) == sha
        except OSError as fault:
            return f"{name} cannot be read ({fault.strerror})"
        if not same:
            return f"{name} has another checksum"
    return None


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _seal_of(manifest: Mapping[str, Any]) -> str:
    """Return the checksum of all that a manifest says, as it reads from the file."""
    content = json.loads(json.dumps({k: v for k, v in manifest.items() if k != "sha256"}))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
