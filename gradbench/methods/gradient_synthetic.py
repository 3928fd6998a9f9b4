"""H fitted on challenges that it makes itself from clean images."""

from __future__ import annotations

from collections.abc import Mapping

from gradbench.errors import GradbenchError
from gradbench.methods.gradient import OWN, Gradient

DEFAULT = {"gaussian_noise": 3, "gaussian_blur": 3, "fgsm": None}


class GradientSynthetic(Gradient):
    """H of `gradient`, fitted on noise, blur and FGSM made from the hold-out, used on all others.

    Half of the images that the challenges are made from fit H, the other half chooses its epoch,
    each with what was made from it. No image of the measured challenge is seen, but where that is
    of a family fitted on, or of a relative, the row says so (`gradbench.run.synthetic.relation`).

    Differs from the paper: there H is fitted on the challenge itself.

    Args:
        challenges: level, or null where there is none, by name of the challenge's file.
        images: hold-out images to make them from, at most; class-stratified.
        label: as the following, see `gradient`.
        loss: of the gradients read.
        hidden: units of the hidden layer.
        normalisation: of the gradients.
        epochs: passes over the images that H is fitted on.
        batch: samples in a step.
        lr: of Adam.
        weight_decay: of Adam.

    Raises:
        GradbenchError: for a setting out of range.
    """

    info = OWN
    supervision = "synthetic"

    def __init__(
        self,
        challenges: Mapping[str, int | None] | None = None,
        images: int = 2000,
        label: str = "ones",
        loss: str = "bce",
        hidden: int = 64,
        normalisation: str = "log_standard",
        epochs: int = 50,
        batch: int = 256,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
    ):
        super().__init__(label, loss, hidden, normalisation, epochs, batch, lr, weight_decay)
        self.synthetic = dict(DEFAULT if challenges is None else challenges)
        if not self.synthetic or type(images) is not int or images < 10:
            raise GradbenchError(
                f"gradient_synthetic challenges={self.synthetic} images={images}: name at least "
                "one challenge and 10 images"
            )
        self.synthetic_images = images
