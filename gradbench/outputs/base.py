"""The base class of outputs of f, and the context of a batch of images that they read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.data.imageset import ImageSet
from gradbench.errors import GradbenchError
from gradbench.gradients import Alignments, GradientNorms, alignments, outputs, squared_norms
from gradbench.outputs.layer_gradients import layer_gradients
from gradbench.outputs.layers import FEATURES, Recorder
from gradbench.support.code_keys import code_key, is_external


@dataclass(frozen=True, eq=False)
class Alignment:
    """Directions of f's parameters by their names, (K, *shape), and a loss to be differentiated.

    The loss is a function of the logits, (B,). `origin` is what the directions were learned as.
    """

    directions: Mapping[str, Tensor]
    loss: Callable[[Tensor], Tensor]
    origin: Any = None
    _placed: dict[torch.device, dict[str, Tensor]] = field(default_factory=dict)

    def on(self, device: torch.device) -> dict[str, Tensor]:
        """Return the directions on a device, to which they are brought once."""
        if device not in self._placed:
            # Copies begin where their memory does: a tensor within a file's gives other last bits.
            copies = {n: v.to(device, copy=True) for n, v in self.directions.items()}
            self._placed[device] = copies
        return self._placed[device]


@dataclass(frozen=True)
class Needs:
    """The needs of an output, besides the logits, from the pass that all outputs of a batch share.

    What is not declared can be had too, but costs a further pass. `layer_means` and `activations`
    are names of layers, `gradients` pairs (label, loss) of squared gradient norms,
    `layer_gradients` pairs (loss, layer) of gradients with respect to a layer's output, `mirrored`
    the needs from a pass over the mirrored images, `alignments` products of gradients with
    directions.
    """

    features: bool = False
    layer_means: tuple[str, ...] = ()
    activations: tuple[str, ...] = ()
    gradients: tuple[tuple[str, str], ...] = ()
    layer_gradients: tuple[tuple[str, str], ...] = ()
    mirrored: tuple[Needs, ...] = ()
    alignments: tuple[Alignment, ...] = ()

    @property
    def places(self) -> list[tuple[str, str]]:
        """The places of f that a `Recorder` has to keep."""
        return [
            *([FEATURES] if self.features else []),
            *(("means", layer) for layer in self.layer_means),
            *(("activations", layer) for layer in self.activations),
        ]


Gradients = GradientNorms | Alignments
"""Statistics of gradients that take a pass."""


class BatchContext:
    """A batch of images with everything that outputs may read of f for it.

    All outputs of a batch share one pass: it is made when the first of them asks for a value, and
    keeps what any of them declared in `needs`. With `lends_copies` the reader gets copies, so that
    it cannot change what others read; `halvings` counts the chunks that the engine halved because
    memory did not suffice.

    Args:
        backbone: f in evaluation mode.
        images: (B, C, H, W) in [0, 1], on the backbone's device.
        needs: of the outputs that will be read.
    """

    def __init__(self, backbone: Backbone, images: Tensor, needs: Iterable[Needs] = ()):
        needs = list(needs)
        self.backbone, self._images = backbone, images
        self.halvings, self.lends_copies = 0, False
        self._mirrored_needs = [inner for one in needs for inner in one.mirrored]
        self._gradients = list(dict.fromkeys(pair for one in needs for pair in one.gradients))
        self._layers = [pair for one in needs for pair in one.layer_gradients]
        self._aligned = [which for one in needs for which in one.alignments]
        self._places = list(dict.fromkeys(place for one in needs for place in one.places))
        self._logits: Tensor | None = None
        self._recorders: list[Recorder] = []
        self._norms: dict[tuple[str, str] | Alignment, Gradients | GradbenchError] = {}
        self._layer_gradients: dict[tuple[str, str], tuple[Tensor, Tensor] | GradbenchError] = {}

    @property
    def images(self) -> Tensor:
        """(B, C, H, W) in [0, 1]."""
        return self._lend(self._images)

    @property
    def logits(self) -> Tensor:
        """(B, classes)."""
        self._make_shared_pass()
        return self._lend(self._logits)

    @property
    def features(self) -> Tensor:
        """Input of the last linear layer, (B, D).

        Raises:
            GradbenchError: if the logits are not the output of a linear layer.
        """
        return self._lend(self._recorded(FEATURES))

    def layer_means(self, layer: str) -> Tensor:
        """Return the means of a layer's output over positions, (B, channels)."""
        return self._lend(self._recorded(("means", layer)))

    def activations(self, layer: str) -> Tensor:
        """Return the output of a layer, (B, ...), for example maps (B, C, H, W)."""
        return self._lend(self._recorded(("activations", layer)))

    def squared_norms(self, label: str, loss: str) -> Tensor:
        """Return ||dJ/dtheta_t||^2 of every image and parameter tensor, (B, d).

        J is the loss of the image against the confounding label. Columns stand in the order of
        `parameter_names`. Other statistics of gradients: `gradbench.gradients` on `backbone`.

        Raises:
            GradbenchError: for an unknown label or loss, and where the engine refuses the network.
        """
        return self._lend(self._gradients_of((label, loss)).values)

    def alignments(self, which: Alignment) -> Alignments:
        """Return products of the gradients with directions, and squared norms, (B, d, K), (B, d).

        Raises:
            GradbenchError: where the engine refuses the network or the directions.
        """
        found = self._gradients_of(which)
        lent = {n: self._lend(getattr(found, n)) for n in ("products", "cosines", "squared_norms")}
        return replace(found, **lent)

    def layer_gradient(self, loss: str, layer: str) -> tuple[Tensor, Tensor]:
        """Return the output of a layer, (B, ...), and the gradient of a loss with respect to it.

        The loss is one of `gradbench.outputs.layer_gradients.LOSSES`. It takes a pass forward and
        back of its own, which the layers of one loss share.

        Raises:
            GradbenchError: for an unknown loss or layer, and where an image has no such gradient.
        """
        if (loss, layer) not in self._layer_gradients:
            layers = dict.fromkeys([*(of for name, of in self._layers if name == loss), layer])
            found = layer_gradients(self.backbone, self._images, loss, list(layers))
            self._layer_gradients |= {(loss, name): of for name, of in found.items()}
        result = self._layer_gradients[loss, layer]
        if isinstance(result, GradbenchError):
            raise result
        return self._lend(result[0]), self._lend(result[1])

    @cached_property
    def mirrored(self) -> BatchContext:
        """The same batch with left and right exchanged."""
        return BatchContext(self.backbone, self._images.flip(-1), self._mirrored_needs)

    @property
    def parameter_names(self) -> list[str]:
        """Names of the parameter tensors of the network, in the order of the squared norms."""
        return [name for name, _ in self.backbone.network.named_parameters()]

    def _make_shared_pass(self) -> None:
        """Make the pass of the first gradients that are needed, or else a forward pass."""
        if self._logits is not None:
            return
        with Recorder(self.backbone, self._images, self._places) as recorder:
            for which in (*self._gradients, *self._aligned)[:1]:
                result = self._gradient_pass(which)
                # where memory ran out, hooks may have seen some images twice
                if not isinstance(result, GradbenchError) and not result.halvings:
                    self._logits = result.outputs
            if self._logits is None:
                recorder.clear()
                self._logits = outputs(self.backbone, self._images)
        self._recorders.append(recorder)

    def _gradients_of(self, which: tuple[str, str] | Alignment) -> Gradients:
        self._make_shared_pass()
        result = self._gradient_pass(which)
        if isinstance(result, GradbenchError):
            raise result
        return result

    def _gradient_pass(self, which: tuple[str, str] | Alignment) -> Gradients | GradbenchError:
        if which not in self._norms:
            f, images = self.backbone, self._images
            try:
                if isinstance(which, Alignment):
                    found = alignments(f, images, which.on(f.device), loss=which.loss)
                else:
                    found = squared_norms(f, images, label=which[0], loss=which[1])
                self.halvings += found.halvings
            except GradbenchError as fault:  # raised to those who read it: others may go on
                found = fault
            self._norms[which] = found
        return self._norms[which]

    def _recorded(self, place: tuple[str, str]) -> Tensor:
        self._make_shared_pass()
        if not any(recorder.holds(place) for recorder in self._recorders):
            with Recorder(self.backbone, self._images, [place]) as recorder:
                outputs(self.backbone, self._images)
            self._recorders.append(recorder)
        (recorder, *_) = (one for one in self._recorders if one.holds(place))
        return recorder.values(place)

    def _lend(self, tensor: Tensor) -> Tensor:
        return tensor.clone() if self.lends_copies else tensor


class Output(ABC):
    """One named quantity that is read off f, a tensor for each image.

    One Python file and one file in `configs/output/`; detectors name it in `reads`. A name may end
    in values for the arguments that `parameters` lists: `squared_norms/ones/bce`.

    Attributes:
        name: by which detectors read it; given by the catalogue that builds it.
        settings: of its file, where that is not one of gradbench's.
        parameters: arguments of the constructor that a name may give after slashes.
        needs: what it takes from the shared pass; of the class, or of the object.
        weights: digest of the networks that it is read off, empty where that is f.
        version: raised when its values change, so that kept ones are not mistaken for them.
        learns_from: training images of f, at most, that it learns from before it is read,
            class-stratified; 0 if it learns nothing.
        learned: what `learn` gave; `learned_key` stands for it in keys of products.
    """

    name: str = ""
    settings: Mapping[str, Any] = {}
    parameters: ClassVar[tuple[str, ...]] = ()
    needs: Needs = Needs()
    weights: str = ""
    version: ClassVar[int] = 1
    learns_from: int = 0
    learned: Mapping[str, Tensor] = {}
    learned_key: str = ""

    def learn(self, backbone: Backbone, images: ImageSet) -> dict[str, Tensor]:
        """Return what is learned from training images and their labels, before `read`.

        Called once for a network, if `learns_from` asks for images; the result is kept, and is
        `learned` when the output is read. Detectors read one of its tensors by putting
        `learned/<output>/<tensor>` among their `bank_reads`.
        """
        raise NotImplementedError

    @abstractmethod
    def read(self, context: BatchContext) -> Tensor:
        """Return the values of a batch, (B, ...) and finite; kept as float32.

        Those of an image must not depend on the images beside it.
        """

    def of_network(self, backbone: Backbone) -> Sequence[Output]:
        """Return the outputs that this name stands for with a network: itself, or one a layer."""
        return [self]

    def of_members(self, members: Sequence[tuple[Backbone, str]]) -> Output:
        """Return the output with all networks of a run, each given with its digest.

        It is the output itself, unless that compares the networks.
        """
        return self

    @property
    def identity(self) -> int | dict[str, Any]:
        """Its part in keys of products: a version, a user's code, and what it learned."""
        more = code_key(self) | ({"learned": self.learned_key} if self.learns_from else {})
        if not (self.settings or more):
            return self.version
        return {"version": self.version, "settings": dict(self.settings), **more}

    @property
    def is_users_own(self) -> bool:
        """Tell whether its class is from outside gradbench."""
        return is_external(self)
