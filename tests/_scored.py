"""One finished run with detectors of every kind, and its test images as files."""

from functools import cache
from pathlib import Path

import torch
from _runs import TINY, gradbench
from PIL import Image

from gradbench.backbones.trained_network import load_or_train
from gradbench.config import compose
from gradbench.data.in_distribution import load_in_distribution
from gradbench.run.context import NetworkContext, network_request
from gradbench.run.experiment import build_experiment
from gradbench.store import Store

UNSUPERVISED = ("msp", "knn", "gradient_oneclass", "odin_fixed")
SUPERVISED = ("gradient_logistic@gaussian_noise 5", "mahalanobis_p@gaussian_noise 5")
WORDS = (
    *(word for word in TINY if not word.startswith("detectors")),
    "detectors=[gradient_logistic,msp,knn,gradient_oneclass,odin_fixed,mahalanobis_p]",
)


@cache
def finished(base: Path) -> Path:
    """Return the folder with `run`, `store` and `pictures`; nobody writes there again."""
    folder = base / "finished"
    (folder / "pictures").mkdir(parents=True)
    ran = gradbench("run", *WORDS, cwd=folder)
    assert ran.code == 0, ran.err
    for row, pixels in enumerate(world(folder).images.normal.images):
        Image.fromarray(pixels[0]).save(folder / f"pictures/{row:03d}.png")
    return folder


def world(folder: Path) -> NetworkContext:
    """Return network, images and store of the run."""
    torch.set_num_threads(1)
    experiment = build_experiment(compose(WORDS))
    store = Store(folder / "store")
    images = load_in_distribution(experiment.dataset, experiment.data, experiment.config["limit"])
    f = load_or_train(network_request(experiment, images, 0), images.train, images.test, store)
    return NetworkContext(experiment, images, f, 0, store)
