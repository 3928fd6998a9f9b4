"""Small data sets for the tests of the room: built from their files, saved, drawn."""

import numpy as np
from PIL import Image

from gradbench.data.catalogue import build_dataset
from gradbench.data.dataset import Dataset

ROLES = {"train": "train", "test": "test", "challenge": ["test", "train"]}
OWN_ROLES = {"train": "train", "test": "test", "challenge": ["test", "all", "train"]}


def build(name, /, **changes):
    return build_dataset(name, changes=changes)


def small(**changes):
    return Dataset(**{"name": "small", "roles": ROLES} | changes)


def save(path, count=6, shape=(4, 4, 3), **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(count) % 2, **more)
    return images


def picture(path, size=(8, 8), colour=(10, 20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
