"""The images of a challenge, and which of an attack's images are kept.

keep=successful: only images that f classified correctly before and takes for another class after
the attack, and on the normal side their clean sources alone. noisy_negatives=true: noisy copies
stand on the normal side too, two normal images for each abnormal one; with keep=successful f must
also be right on the noisy copy. Copies have the source of their originals, so all three stay on
one side of a split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.trained_network import TrainedNetwork
from gradbench.challenges import checked
from gradbench.challenges.archive import archive_of, published_images
from gradbench.challenges.base import External, ImageRequest
from gradbench.challenges.controls import NoisyCopy
from gradbench.challenges.produce import AttackOutcome, ChallengeSetup
from gradbench.data.checked import load
from gradbench.data.imageset import ImageSet
from gradbench.data.in_distribution import InDistribution
from gradbench.errors import Faulty, GradbenchError, MissingData
from gradbench.run.experiment import Cell, Experiment
from gradbench.store import Store


@dataclass(frozen=True)
class ChallengeImages:
    """The images of a challenge at the in-distribution shape, and the outcome of an attack.

    Another set has a `native_shape` (C, H, W), before it was brought to shape, and the `processing`
    that it went through before, see `data.resample.round_trip`.
    """

    images: ImageSet
    attack: AttackOutcome | None = None
    native_shape: Sequence[int] | None = None
    processing: Sequence | None = None


def published(
    experiment: Experiment, cell: Cell, images: InDistribution, store: Store
) -> ImageSet | None:
    """Return the published images of a corruption, None where it is not taken from an archive.

    See `archive.archive_of` and `archive.published_images`.
    """
    name, challenge, root = experiment.dataset.name, cell.challenge, experiment.data.root
    archive = archive_of(challenge, experiment.config, name, root)
    if archive is None:
        return None
    grouped = experiment.protocol.split != "random"
    return published_images(archive, challenge, cell.level, cell.title, images, grouped, store)


def load_challenge(experiment: Experiment, cell: Cell, clean: ImageSet) -> ChallengeImages:
    """Return the images of a challenge that is not made from the clean ones.

    Raises:
        MissingData: if they are not at hand or cannot be read: one such set is a row without
            numbers and does not end the run.
    """
    challenge, data = cell.challenge, experiment.data
    try:
        if isinstance(challenge, External):
            seed = experiment.settings.challenge.seed
            request = ImageRequest(cell.title, cell.level, clean, experiment.dataset, data, seed)
            return ChallengeImages(checked.find(challenge, request))
        dataset = experiment.other_dataset(challenge)
        native = (
            cell.listed.load(dataset, data) if cell.listed else load(dataset, "challenge", data)
        )
        images = challenge.prepare(native, clean.shape, cell.name)
        return ChallengeImages(images, None, native.shape, dataset.processing_of(native))
    except (MissingData, Faulty):
        raise
    except GradbenchError as fault:
        raise MissingData(str(fault)) from fault


def setup(
    experiment: Experiment, cell: Cell, f: TrainedNetwork, strength: float | None = None
) -> ChallengeSetup:
    """Return the setup of a challenge that is made from clean images.

    A strength stands in place of that of the level.
    """
    challenge, settings = cell.challenge, experiment.settings.challenge
    return ChallengeSetup(
        challenge,
        cell.title,
        challenge.strength_at(cell.level) if strength is None else strength,
        settings.seed,
        settings.quantise,
        f.backbone if challenge.uses_network else None,
        f.weights if challenge.uses_network else "",
    )


def attack_policy(experiment: Experiment, cell: Cell) -> tuple[str, bool]:
    """Return which images are kept, and whether noisy ones count as normal.

    What the run says of all attacks goes before what an attack says itself.
    """
    settings, challenge = experiment.settings.challenge, cell.challenge
    keep, noisy = settings.keep, settings.noisy_negatives
    return (
        getattr(challenge, "keep", "all") if keep is None else keep,
        getattr(challenge, "noisy_negatives", False) if noisy is None else noisy,
    )


def noisy_copies(
    experiment: Experiment, cell: Cell, clean: ImageSet, f: Backbone
) -> ChallengeSetup:
    """Return the setup of the noisy copies of clean images, beside an attack."""
    settings = experiment.settings.challenge
    copy = NoisyCopy(cell.challenge.noise, f.std.flatten().tolist())
    strength = copy.strength_at(None)
    name = f"{clean.name} with noise"
    return ChallengeSetup(copy, name, strength, settings.seed, settings.quantise)
