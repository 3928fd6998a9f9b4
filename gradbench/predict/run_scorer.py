"""Scores of new images by the detectors of a finished run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gradbench.backbones.devices import find_device
from gradbench.data.imageset import ImageSet, shards, source_ids, to_float
from gradbench.data.picture import Resampling
from gradbench.data.resample import resize_pixels
from gradbench.errors import Faulty, GradbenchError, printable, unknown
from gradbench.methods.base import Detector
from gradbench.methods.fold_scores import one_thread
from gradbench.outputs.base import Output
from gradbench.outputs.extract import OutputValues, select_outputs
from gradbench.outputs.read import BATCH, compute_outputs
from gradbench.predict.pictures import as_array, decode_files, find_pictures
from gradbench.predict.saved_network import WRONG_STATE, SavedNetwork, first_line, open_run
from gradbench.support.progress import Progress

if TYPE_CHECKING:
    import pandas

RELIABLE, ABNORMAL = "reliable", "abnormal"
VERDICT = "verdict_"
"""Start of the name of a detector's second column."""


def load(
    run: str | Path,
    seed: int | None = None,
    trust: Sequence[str] = (),
    device: str | torch.device = "auto",
) -> RunScorer:
    """Return a scorer of new images with the network and detectors of a finished run.

    `gradbench.load(RUN).score(images)` gives a table. Nothing that the run's folder holds is
    executed: network and detectors are built from their class paths if gradbench or torchvision
    defines those, and get their tensors from safetensors files whose checksums are compared.

    Args:
        run: the run's folder, or its name under `outputs/`.
        seed: of several networks the one to take; None for the first.
        trust: modules whose classes may be built too.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        GradbenchError: if there is no such run, a file is damaged, or a class is not trusted.
    """
    return RunScorer(open_run(run, seed, trust), find_device(str(device)))


class RunScorer:
    """A network of a finished run with its detectors, for images that nobody has seen.

    Attributes:
        detectors: names of all detectors; `gradient@svhn` was fitted on the challenge svhn.
        default: names of those that learned from no challenge image given to them.
        thresholds: largest score called reliable, by detector; None where there was no hold-out.
    """

    def __init__(self, saved: SavedNetwork, device: torch.device):
        self.saved = saved
        self.backbone = saved.backbone(device)
        self.detectors = tuple(saved.entries)
        self.default = tuple(n for n, e in saved.entries.items() if not e["fitted_on"])
        self.thresholds: dict[str, float | None] = {
            name: entry["threshold"] and entry["threshold"]["value"]
            for name, entry in saved.entries.items()
        }
        self._fit = Resampling(**saved.about["resampling"])
        self._built: dict[str, Detector] = {}
        self._ready: dict[str, Output] = {}

    def score(
        self,
        images: np.ndarray | Tensor | str | Path | Sequence[str | Path],
        detectors: Sequence[str] | None = None,
        bits: int | None = None,
    ) -> pandas.DataFrame:
        """Return class, probability, scores (higher = more abnormal) and verdicts of images.

        Args:
            images: (N, C, H, W): uint8 of any size, or floats in [0, 1] in the network's shape,
                not normalised and not rounded here; or files and folders of pictures.
            detectors: names; a supervised one alone (`gradient`) stands for all that it was
                fitted on. None for `default`.
            bits: of grey files with more than 8; None for what the files themselves say.

        Returns:
            A row an image: `file` (of files), `class`, `probability`, a column for each detector,
            `verdict_<detector>` (`reliable` up to the threshold that keeps at least 95 % of the
            hold-out, else `abnormal`, empty without one), `note` (of files: why one cannot be
            read; its other columns are empty).

        Raises:
            GradbenchError: for an unknown detector, or images of another shape, type or range.
        """
        import pandas

        names = self.choose(detectors)
        if torch.is_tensor(images) or isinstance(images, np.ndarray):
            shape = self.backbone.shape
            pixels = as_array(images, shape)

            def read(rows: slice) -> tuple[np.ndarray, list[str]]:
                batch = pixels[rows]
                if batch.shape[1:] != shape:  # of uint8, see as_array
                    batch = resize_pixels(batch, shape, self._fit)
                return batch, [""] * len(batch)

            parts = [frame.drop(columns="note") for frame in self._frames(len(pixels), read, names)]
        else:
            parts = list(self.stream(find_pictures(images), names, bits))
        return pandas.concat(parts, ignore_index=True)

    def stream(
        self, paths: Sequence[Path], names: Sequence[str], bits: int | None = None
    ) -> Iterator[pandas.DataFrame]:
        """Yield the rows of up to 1,000 files at a time; see `score` and `choose`."""

        def read(rows: slice) -> tuple[np.ndarray, list[str]]:
            return decode_files(paths[rows], self.backbone.shape, self._fit, bits)

        start = 0
        for frame in self._frames(len(paths), read, names):
            named = paths[start : start + len(frame)]
            frame.insert(0, "file", [str(path) for path in named])
            start += len(frame)
            yield frame

    def choose(self, detectors: Sequence[str] | None = None) -> list[str]:
        """Return the full names of detectors, having built them.

        Raises:
            GradbenchError: for an unknown one, one that cannot be built, or none.
        """
        requested = self.default if detectors is None else detectors
        names: dict[str, None] = {}
        for wanted in [requested] if isinstance(requested, str) else requested:
            fitted = [n for n in self.detectors if n.startswith(f"{wanted}@")]
            if wanted not in self.detectors and not fitted:
                raise unknown("detector of this run", wanted, self.detectors)
            names.update(dict.fromkeys([wanted] if wanted in self.detectors else fitted))
        if not self.detectors:
            raise GradbenchError(
                f"{printable(self.saved.folder)} holds no detector: take another run"
            )
        if not names:
            all_fitted = "every detector of this run was fitted on a challenge"
            raise GradbenchError(
                f"{all_fitted if detectors is None else 'no detector is named'}: name some of "
                f"{', '.join(self.detectors)} (--detector NAME, from Python detectors=[NAME])"
            )
        for name in names:
            if name not in self._built:
                self._built[name] = self.saved.detector(name)
        return list(names)

    def _frames(
        self,
        count: int,
        read: Callable[[slice], tuple[np.ndarray, list[str]]],
        names: Sequence[str],
    ) -> Iterator[pandas.DataFrame]:
        """Yield the rows of each shard.

        Batches are those in which a run reads a set of this size: the last bits of outputs may
        depend on the batch, and scores are then those of the run.
        """
        with Progress("scores", count) as progress:
            for rows in shards(count):
                parts, faults = [], []
                for start in range(rows.start, rows.stop, BATCH):
                    pixels, notes = read(slice(start, min(start + BATCH, rows.stop)))
                    faults += notes
                    if len(pixels):
                        parts.append(self._outputs(pixels, names))
                    progress.advance(len(notes))
                yield self._frame(parts, faults, names)

    def _outputs(self, pixels: np.ndarray, names: Sequence[str]) -> dict[Any, Tensor]:
        """Return outputs of f for a batch by name, those of further passes by (detector, name)."""
        size = len(pixels)
        ids = source_ids("pictures", "", size)
        images = ImageSet("the pictures", "", pixels, np.zeros(size, np.int64), ids)
        wanted = {"logits", *(read for name in names for read in self._built[name].reads)}
        outputs = [
            self._taught(output) for output in self.saved.outputs.of_network(self.backbone, wanted)
        ]
        read = compute_outputs(self.backbone, images, slice(0, size), outputs)
        values = OutputValues(read.values, read.faults)
        for name in names:
            with self._blame(name):
                select_outputs(values, self._built[name].reads)
        for name in names:
            with self._blame(name):
                for inner, one in self._built[name].perturbed_passes.items():
                    parts, _ = one.in_batches(self.backbone, to_float(pixels))
                    values[name, inner] = torch.cat(parts)
        return values

    def _taught(self, output: Output) -> Output:
        if output.name not in self._ready:
            self._ready[output.name] = self.saved.taught(output)
        return self._ready[output.name]

    def _frame(
        self, parts: list[dict], faults: list[str], names: Sequence[str]
    ) -> pandas.DataFrame:
        """Return the rows of a shard from the outputs of its batches."""
        import pandas

        good = np.array([not fault for fault in faults])
        verdicts = [f"{VERDICT}{name}" for name in names]
        columns: dict[str, Any] = {"class": np.full(len(good), "", object)}
        columns |= {n: np.full(len(good), np.nan) for n in ("probability", *names)}
        columns |= {n: np.full(len(good), "", object) for n in verdicts} | {"note": faults}
        if parts:
            outputs = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
            top = outputs["logits"].double().softmax(1).max(1)
            columns["class"][good] = np.array(self.backbone.classes, object)[top.indices.numpy()]
            columns["probability"][good] = top.values.numpy()
            for name, verdict in zip(names, verdicts):
                detector, limit = self._built[name], self.thresholds[name]
                further = {inner: outputs[name, inner] for inner in detector.perturbed_passes}
                with one_thread(), self._blame(name):
                    scores = detector.predict(outputs | further).double().numpy()
                columns[name][good] = scores
                if limit is not None:
                    columns[verdict][good] = np.where(scores <= limit, RELIABLE, ABNORMAL)
        return pandas.DataFrame(columns)

    @contextmanager
    def _blame(self, name: str) -> Iterator[None]:
        """Name the detector that cannot work: what it learned may be another network's."""
        try:
            yield
        except (Faulty, *WRONG_STATE) as fault:
            raise GradbenchError(
                f"{name} of {printable(self.saved.folder)} cannot score these images "
                f"({first_line(fault)}): choose others with --detector (from Python "
                "detectors=[NAME])"
            ) from fault
