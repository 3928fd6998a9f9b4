"""What a file given as a checkpoint is, told by its content whatever its name ends in."""

from __future__ import annotations

import zipfile
from pathlib import Path

STATE = "torch.save(network.state_dict(), FILE)"
BRING = f"give the weights to the network in torch and write them with {STATE}"

_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""How files of torch before 1.6 begin: a pickle of torch's magic number."""

_BEGINNINGS = (
    (0, b"version https://git-lfs", "a Git LFS pointer that stands for the file: run git lfs pull"),
    (0, b"\x89HDF\r\n\x1a\n", f"HDF5, as Keras writes: {BRING}"),
    (0, b"\x93NUMPY", f"a numpy array: {BRING}"),
    (0, b"GGUF", f"GGUF, the quantised weights of llama.cpp: {BRING}"),
    (4, b"TFL3", f"a TensorFlow Lite network: {BRING}"),
    (0, b"\x1f\x8b", "compressed by gzip: unpack it"),
    (0, b"BZh", "compressed by bzip2: unpack it"),
    (0, b"\xfd7zXZ\x00", "compressed by xz: unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (0, b"Rar!", "a RAR archive: unpack it"),
    (257, b"ustar", "a tar archive: unpack it"),
)
_WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".tar", ".h5", ".onnx")


def foreign(path: Path) -> str:
    """Return what a file is and what to do; empty if it is safetensors or a file of torch.

    Raises:
        OSError: if it cannot be read.
    """
    size = path.stat().st_size
    with open(path, "rb") as stream:
        head = stream.read(4096)
    if not head:
        return "it is empty: fetch it again"
    if is_safetensors(path):
        end = 8 + int.from_bytes(head[:8], "little")
        return "" if end <= size else "it is cut short: fetch it again"
    if head.startswith(b"PK"):
        return _archive(path)
    if head.startswith(_LEGACY):
        return ""
    for place, beginning, what in _BEGINNINGS:
        if head[place:].startswith(beginning):
            return f"it is {what}"
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return (
            "it is a Python pickle that torch.save did not write, and reading one can execute "
            f"code: where you trust its source, write the weights alone with {STATE}"
        )
    if path.suffix == ".onnx" or (head[:1] == b"\x08" and head[2:3] == b"\x12"):
        return f"it is an ONNX network: write the weights where it was exported with {STATE}"
    return _text(head)


def is_safetensors(path: Path) -> bool:
    """Tell whether a file begins as safetensors do: the length of a JSON object, and that."""
    with open(path, "rb") as stream:
        head = stream.read(10)
    return len(head) == 10 and head[8:9] == b"{" and head[6:8] == b"\0\0"


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return "it is cut short or damaged: fetch it again"
    ends = {name.partition("/")[2] or name for name in names}
    if "constants.pkl" in ends or any(end.startswith("code/") for end in ends):
        save = "torch.save(torch.jit.load(OLD).state_dict(), FILE)"
        return f"it is a TorchScript archive, a program: write its weights alone with {save}"
    if "data.pkl" in ends:
        return ""
    if any("exported_program" in end or end == "archive_format" for end in ends):
        save = "torch.save(torch.export.load(OLD).state_dict, FILE)"
        return f"it is a program of torch.export: write its weights alone with {save}"
    if "model.weights.h5" in names:
        return f"it is a Keras network: {BRING}"
    if names and all(name.endswith(".npy") for name in names):
        return f"it is an archive of numpy arrays: {BRING}"
    inside = [name for name in names if name.endswith(_WEIGHTS)] or names
    some = ", ".join(inside[:3]) + (f" and {len(inside) - 3} more" if len(inside) > 3 else "")
    return f"it is a zip archive of {some or 'nothing'}: unpack it and name the file of weights"


def _text(head: bytes) -> str:
    try:
        text = head[:1024].decode("utf-8", "strict" if len(head) < 1024 else "ignore").strip()
    except UnicodeDecodeError:
        text = ""
    if not text or not text.replace("\n", " ").replace("\t", " ").replace("\r", " ").isprintable():
        return "its content is of no known kind: fetch it again"
    if text.startswith("<"):
        page = "a page of HTML" if "html" in text.lower() else "XML"
        return f"it is {page}, as a server sends in place of a file: fetch the file itself"
    if b'"weight_map"' in head:
        return "it is the index of a network kept in several files: put their tensors into one"
    begins = " ".join(text.split())[:40]
    return f"it is text that begins with '{begins}': fetch the file itself"
