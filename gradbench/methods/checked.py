"""The door of detectors: what they are given, and what they hand back.

Scores of every detector are looked at. One whose class is from outside gets copies of what others
read too, its scores must not depend on what is scored beside an image, and a fault in it is one
sentence; the run goes on with the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from gradbench.errors import Faulty, GradbenchError, unknown
from gradbench.methods.base import (
    BANK_EXTRAS,
    PREDICTIONS,
    SUPERVISION,
    Detector,
    Info,
    Method,
    Outputs,
    Samples,
    learned_among,
)
from gradbench.outputs.catalogue import OutputCatalogue, built_in
from gradbench.support.code_keys import is_external
from gradbench.support.external import external_call, seed_process

ROUGHLY = 0.05
"""Share of the largest score by which that of one image may differ with the number of images."""
ROUNDING = 1e-3
"""Likewise as a share of the longest output: what float32 leaves of distances near zero."""
EXACT = 1e-6
"""Relative error of a score after the state went through a file."""


def check_declared(name: str, detector: Method, outputs: OutputCatalogue | None = None) -> None:
    """Check what the class of a detector declares, before any work.

    Raises:
        Faulty: naming the declaration, and what is valid; `outputs` are those that may be read,
            gradbench's own by default.
    """
    outputs = outputs or built_in()
    start = f"detector {name}: {type(detector).__qualname__}"
    if not isinstance(detector, Method):
        raise Faulty(f"{start} is not derived from gradbench.methods.base.Detector")
    predicts = getattr(detector, "predicts", None)
    if predicts not in PREDICTIONS:
        raise Faulty(f"{start}: {unknown('kind of predictions', str(predicts), PREDICTIONS)}")
    if not isinstance(getattr(detector, "info", None), Info):
        raise Faulty(f"{start}.info is missing: Info(title, venue, url) names the paper")
    supervision = getattr(detector, "supervision", None)
    if supervision not in SUPERVISION:
        raise Faulty(f"{start}: {unknown('supervision', str(supervision), SUPERVISION)}")
    if not hasattr(detector, "reads"):
        raise Faulty(f"{start}.reads is missing: reads = ('logits',) names the outputs it scores")
    extras = {"reads": (), "bank_reads": BANK_EXTRAS, "hold_out_reads": ("labels",)}
    for field, extra in extras.items():
        names = getattr(detector, field)
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise Faulty(f"{start}.{field} is {names!r}: write a list of outputs, ('logits',)")
        learned = learned_among(map(str, names)) if field == "bank_reads" else {}
        for output in {*map(str, names)}.difference(extra, learned).union(learned.values()):
            try:
                found = outputs.find(output)
            except GradbenchError as fault:
                raise Faulty(f"{start}.{field}: {fault}") from fault
            if output in learned.values() and not found.learns_from:
                raise Faulty(f"{start}.{field}: the output {output} learns nothing")
    few = detector.bank_images
    if few is not None and (type(few) is not int or few < 1):
        raise Faulty(f"{start}.bank_images is {few!r}: a whole number, at least 1, or None for all")
    if bool(detector.synthetic) != (supervision == "synthetic"):
        raise Faulty(f"{start}: supervision = 'synthetic' and `synthetic` challenges go together")
    with external_call(start):
        perturbs = bool(detector.perturbed_passes) or bool(detector.planned_passes(("layer",)))
        str(detector.pass_count), detector.clean_seen, detector.learns_from_challenges
    if not (detector.reads or perturbs):
        raise Faulty(f"{start}.reads is empty: name the outputs that it scores, ('logits',)")


def checked(name: str, detector: Method) -> Method:
    """Return a method whose fit, predictions and state are looked at from now on."""
    kind = type(detector)
    guard = _Guarded if is_external(detector) else _Looked
    object.__setattr__(detector, "__class__", _with(guard, kind))
    object.__setattr__(detector, "_member", f"detector {name}: {kind.__qualname__}")
    # the method that its author wrote, for messages
    call = "score" if isinstance(detector, Detector) else "predict"
    object.__setattr__(detector, "_call", f"{detector._member}.{call}")
    return detector


class _Looked(Method):
    """A method of gradbench, whose predictions are looked at."""

    def predict(self, outputs: Outputs) -> Tensor:
        return _numbers(self, super().predict(outputs), _count(outputs))


class _Guarded(Method):
    """A method whose class is from outside."""

    _inside = _alike = False

    @contextmanager
    def _calling(self, method: str):
        """Call one of its methods, which may call others of its own without further ado."""
        object.__setattr__(self, "_inside", True)
        try:
            with external_call(f"{self._member}.{method}"):
                yield
        finally:
            object.__setattr__(self, "_inside", False)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> Method:
        if self._inside:
            return super().fit(bank, fit, choose, seed)
        lent = {"bank": bank} | {
            name: {**part.outputs, "abnormal": part.abnormal}
            for name, part in (("fit", fit), ("choose", choose))
        }
        copies = {name: _copied(tensors) for name, tensors in lent.items()}
        parts = [
            replace(
                part,
                outputs={n: copies[name][n] for n in part.outputs},
                abnormal=copies[name]["abnormal"],
            )
            for name, part in (("fit", fit), ("choose", choose))
        ]
        with self._calling("fit"):
            # so that what draws from the process' numbers is a function of the seed
            seed_process(seed)
            super().fit(dict(copies["bank"]), *parts, seed)
        for name, tensors in lent.items():
            _refuse_changes(f"{self._member}.fit", tensors, copies[name], f" of {name}")
        return self

    def predict(self, outputs: Outputs) -> Tensor:
        if self._inside:
            return super().predict(outputs)
        whole, count = self._predictions(outputs), _count(outputs)
        if count > 1 and not self._alike:  # once for each object: it is the same code every time
            self._check_alone(outputs, whole)
            object.__setattr__(self, "_alike", True)
        return whole

    def state(self) -> dict[str, Tensor]:
        if self._inside:
            return super().state()
        with self._calling("state"):
            state = super().state()
        if not isinstance(state, Mapping):
            raise Faulty(f"{self._member}.state gives {_kind(state)}: a dict of tensors is due")
        for name, tensor in state.items():
            if not isinstance(name, str) or not torch.is_tensor(tensor) or tensor.is_complex():
                raise Faulty(
                    f"{self._member}.state gives {_kind(tensor)} for {name!r}: a dict from names "
                    "to tensors is due, since the state is kept as safetensors"
                )
        return {n: t.detach().cpu().clone(memory_format=torch.contiguous_format)
                for n, t in state.items()}  # fmt: skip

    def load(self, state: Mapping[str, Tensor]) -> Method:
        if self._inside:
            return super().load(state)
        with self._calling("load"):
            super().load(_copied(state))
        return self

    def _predictions(self, outputs: Outputs, seed: int | None = None) -> Tensor:
        copies = _copied(outputs)
        with self._calling(self._call.rpartition(".")[2]):
            if seed is not None:
                seed_process(seed)
            values = super().predict(dict(copies))
        _refuse_changes(self._call, outputs, copies)
        return _numbers(self, values, _count(outputs)).double()

    def _check_alone(self, outputs: Outputs, whole: Tensor) -> None:
        """Refuse scores that are no function of an image's own outputs.

        Among three images, and in the same place among copies of itself, the last one has the same
        score bit for bit, whatever rounding does; and alone about the one that it has among all.
        """
        rows = [len(whole) - 1, len(whole) // 2, 0]
        three, copies, one = (
            {n: v[r] for n, v in outputs.items()} for r in (rows, rows[:1] * 3, rows[:1])
        )
        few, single = self._predictions(three), self._predictions(one)
        other, again = (self._predictions(some, seed=len(whole)) for some in (copies, three))
        if not torch.equal(few, again):
            raise Faulty(
                f"{self._call} gives the same images other scores the second time: random "
                "numbers belong into fit, from its seed, and nothing is kept of images scored"
            )
        scale = max(
            float(v.double().reshape(len(v), -1).norm(dim=1).max())
            for v in outputs.values()
            if v.numel()
        )
        room = ROUGHLY * float(whole.abs().max()) + ROUNDING * scale
        for alone, there, slack in (
            (other[0], few[0], 0.0),
            (few[0], whole[-1], room),
            (single[0], whole[-1], room),
        ):
            gap = (alone - there).abs().reshape(-1)
            if float(gap.max()) > slack:
                worst = int(gap.argmax())
                some, others = (float(v.reshape(-1)[worst]) for v in (there, alone))
                raise Faulty(
                    f"{self._call} gives an image {some:.6g} among some and {others:.6g} among "
                    "others: a score may depend on the image's own outputs alone; statistics of "
                    "other images belong into fit"
                )


def check_state(
    fitted: Method, make: Callable[[], Method], score: Callable[[Method], np.ndarray]
) -> None:
    """Refuse a detector from outside whose state gives another object other scores than it has.

    `make` builds the detector afresh, `score` scores some images with either of the two.
    """
    if not isinstance(fitted, _Guarded):
        return
    due = "all that fit learns belongs into state"
    before = score(fitted)
    try:
        loaded = score(make().load(fitted.state()))
    except Faulty as fault:
        raise Faulty(f"{fault} once state() went through load(): {due}") from fault
    gap = np.abs(before - loaded)
    if gap.max(initial=0) > EXACT * np.abs(before).max(initial=0):
        worst = np.unravel_index(gap.argmax(), gap.shape)
        raise Faulty(
            f"{fitted._member}.load(state()) gives a score of {loaded[worst]:.6g} where the "
            f"fitted one gives {before[worst]:.6g}: {due}"
        )


@cache
def _with(guard: type, kind: type) -> type:
    """Return a class like that of a detector, with the methods of a guard before its own."""
    about = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(kind)(kind.__name__, (guard, kind), about)


def _numbers(method: Method, values, count: int) -> Tensor:
    """Return predictions as a tensor; refuse what is not finite, or has another shape than is due.

    A score is (count,), probabilities are (count, classes), from 0 to 1.
    """
    call, due = method._call, f"({count},)" if method.predicts == "score" else f"({count}, classes)"
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        values = torch.from_numpy(np.array(values))
    if not torch.is_tensor(values) or values.is_complex() or values.layout is not torch.strided:
        raise Faulty(f"{call} gives {_kind(values)}: a tensor {due} is due")
    dimensions = 1 if method.predicts == "score" else 2
    if values.ndim != dimensions or len(values) != count:
        kind = "scores" if method.predicts == "score" else method.predicts
        raise Faulty(
            f"{call} gives {kind} of shape {tuple(values.shape)} for {count} images: {due} is due"
        )
    values = values.detach().cpu()
    values = values if values.is_floating_point() else values.double()
    bad = int((~values.isfinite()).reshape(count, -1).any(1).sum()) if count else 0
    if bad:
        raise Faulty(f"{call} gives {bad} of {count} images a score that is not finite")
    if method.predicts == "probabilities" and not ((values >= 0) & (values <= 1)).all():
        raise Faulty(f"{call} gives probabilities outside 0 and 1")
    return values


def _kind(value) -> str:
    if torch.is_tensor(value):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else repr(value)[:60]


def _count(outputs: Outputs) -> int:
    return len(next(iter(outputs.values()), ()))


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies: versions of tensors would not tell of a change through `.data` or numpy."""
    return {name: values.clone() for name, values in tensors.items()}


def _refuse_changes(call: str, lent: Outputs, copies: Outputs, part: str = "") -> None:
    for name, values in lent.items():
        if not torch.equal(copies[name], values):
            raise Faulty(
                f"{call} changes its input in place ({name}{part}): it must leave it as it is, "
                "work on a clone()"
            )
