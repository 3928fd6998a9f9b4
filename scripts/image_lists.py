"""Make `gradbench/data/lists/openood/numbers.npz` from the published lists of OpenOOD v1.5.

    python scripts/image_lists.py FOLDER BATCH

FOLDER is `benchmark_imglist` of its download (text files `cifar10/test_cifar100.txt`, …), BATCH the
official `cifar-10-batches-py/test_batch`, whose names of files tell copies of CIFAR-10 in any order
apart. The counts, and that the numbers are all there is to a list, are checked.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import sys
from pathlib import Path

import numpy as np

BATCH_MD5 = "40351d587109b95175f43aff81a1287e"
PLACE = Path(__file__).parent.parent / "gradbench/data/lists/openood/numbers.npz"


def numbers(folder: Path, name: str, pattern: str, count: int) -> np.ndarray:
    """Return the number in each path of a list, sorted; every line must match the pattern."""
    lines = (folder / f"{name}.txt").read_text().splitlines()
    found = sorted(int(re.fullmatch(pattern, line.split()[0])[1]) for line in lines)
    if len(set(found)) != count or len(lines) != count:
        raise SystemExit(f"{name}: {len(set(found))} of {len(lines)} lines, {count} are due")
    return np.array(found, np.uint16)


def by_class(folder: Path, name: str, classes: list[str], each: int, count: int) -> np.ndarray:
    """Return numbers that count the images of each class, class after class."""
    found = []
    for line in (folder / f"{name}.txt").read_text().splitlines():
        _, _, own, image = line.split()[0].split("/")
        found.append(each * classes.index(own) + int(image.removesuffix(".png")) - 1)
    if len(set(found)) != count:
        raise SystemExit(f"{name}: {len(set(found))} images, {count} are due")
    return np.array(sorted(found), np.uint16)


def whole(folder: Path, name: str, count: int) -> None:
    """Check a list that names every image of its set."""
    lines = set((folder / f"{name}.txt").read_text().splitlines())
    if len(lines) != count:
        raise SystemExit(f"{name}: {len(lines)} images, {count} are due")


def main(folder: Path, batch: Path) -> None:
    """Write the numbers."""
    content = batch.read_bytes()
    if hashlib.md5(content).hexdigest() != BATCH_MD5:
        raise SystemExit(f"{batch} is not the official batch of test images")
    official = pickle.loads(content, encoding="latin1")
    names = np.array([name.removesuffix(".png") for name in official["filenames"]])
    order = np.argsort(official["labels"], kind="stable")  # class after class
    ten = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    tiny, place = r"tin/val/images/val_(\d+)\.JPEG", r"places365/[^/]+/Places365_val_(\d+)\.jpg"
    arrays = {}
    for in_dist, near, far in (("cifar10", 7793, 35195), ("cifar100", 6526, 33773)):
        own = folder / in_dist
        arrays[f"{in_dist}/tin"] = numbers(own, "test_tin", tiny, near)
        listed = numbers(own, "test_places365", place, far)
        arrays[f"{in_dist}/places365"] = np.setdiff1d(np.arange(1, 36501), listed) - 1
        whole(own, "test_mnist", 70000)
        whole(own, "test_svhn", 26032)
        whole(own, "test_texture", 5640)
    hundred_list = (folder / "cifar100/test_cifar100.txt").read_text().splitlines()
    hundred = sorted({line.split("/")[2] for line in hundred_list})
    key = "cifar10/validation"
    arrays[key] = by_class(folder / "cifar10", "val_cifar10", ten, 1000, 1000)
    arrays[f"{key}/names"] = np.sort(names[order[arrays[key]]]).astype("S")
    arrays["cifar100/validation"] = by_class(
        folder / "cifar100", "val_cifar100", hundred, 100, 1000
    )
    near = by_class(folder / "cifar10", "test_cifar100", hundred, 100, 9000)
    arrays["cifar10/cifar100"] = np.setdiff1d(np.arange(10000), near)
    whole(folder / "cifar100", "test_cifar10", 10000)
    arrays = {name: a if a.dtype.kind == "S" else a.astype(np.uint16) for name, a in arrays.items()}
    np.savez_compressed(PLACE, **arrays)
    print(f"{PLACE}: {PLACE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
