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


def imagenet(folder: Path) -> dict[str, np.ndarray]:
    """Return labels of ImageNet's validation images, classes of ImageNet-200, and names."""
    arrays, labels = {}, np.full(50000, -1)
    own = {name: folder / name for name in ("imagenet", "imagenet200")}

    def lines(name: str, file: str) -> list[list[str]]:
        return [one.split() for one in (own[name] / f"{file}.txt").read_text().splitlines()]

    def number(path: str) -> int:
        return int(re.fullmatch(r"imagenet_1k/val/ILSVRC2012_val_(\d+)\.JPEG", path)[1]) - 1

    spared = {}
    for name, count in (("imagenet", 5000), ("imagenet200", 1000)):
        spared[name] = lines(name, f"val_{name}")
        if len(spared[name]) != count or len(lines(name, f"test_{name}")) != 9 * count:
            raise SystemExit(f"{name}: {len(spared[name])} validation images, {count} are due")
        names = sorted(Path(path).stem for path, _ in spared[name])
        arrays[f"{name}/validation/names"] = np.array(names, "S")
    for path, label in lines("imagenet", "test_imagenet") + spared["imagenet"]:
        labels[number(path)] = int(label)
    if (np.bincount(labels) != 50).any():
        raise SystemExit("imagenet: 50 images a class are due")
    arrays["imagenet/labels"] = labels
    classes = {}
    for path, label in lines("imagenet200", "test_imagenet200") + spared["imagenet200"]:
        if classes.setdefault(int(label), labels[number(path)]) != labels[number(path)]:
            raise SystemExit(f"imagenet200: the label of {path} differs")
    chosen = [classes[label] for label in range(200)]
    if chosen != sorted(chosen):
        raise SystemExit("imagenet200: its classes are not in ImageNet's order")
    arrays["imagenet200/classes"] = np.array(chosen)
    wnids = {label: path.split("/")[1] for path, label in lines("imagenet", "test_imagenet_r")}
    arrays["imagenet200/wnids"] = np.array([wnids[str(label)] for label in chosen], "S")
    stems = sorted(Path(path).stem for path, _ in lines("imagenet", "val_openimage_o"))
    arrays["imagenet/openimage_o/names"] = np.array(stems, "S")
    whole = {Path(one.split()[0]).stem for one in open_lines(folder / "cifar10/test_texture.txt")}
    here = {Path(path).stem for path, _ in lines("imagenet", "test_textures")}
    if not here < whole or len(here) != 5160:
        raise SystemExit(f"imagenet: {len(here)} textures, 5160 are due")
    arrays["imagenet/textures/names"] = np.array(sorted(whole - here), "S")
    for file, count in (("ssb_hard", 49000), ("ninco", 5879), ("inaturalist", 10000),
                        ("openimage_o", 15869)):  # fmt: skip
        for name in own:
            if len({path for path, _ in lines(name, f"test_{file}")}) != count:
                raise SystemExit(f"{name}: {count} images of {file} are due")
    return arrays


def open_lines(path: Path) -> list[str]:
    """Return the lines of a text."""
    return path.read_text().splitlines()


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
    arrays |= imagenet(folder)
    arrays = {name: a if a.dtype.kind == "S" else a.astype(np.uint16) for name, a in arrays.items()}
    np.savez_compressed(PLACE, **arrays)
    print(f"{PLACE}: {PLACE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
