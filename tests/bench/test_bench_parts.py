"""The parts of a benchmark: times, ratios, agreement, memory, rows."""

import csv
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from gradbench.bench import memory, networks, timing
from gradbench.bench.agreement import Difference, agrees, difference
from gradbench.bench.contenders import Contender, Unavailable, prepare
from gradbench.bench.record import COLUMNS, Line, lines, write
from gradbench.bench.settings import Settings, file_stem
from gradbench.bench.table import table
from gradbench.bench.timing import Measured, Ratio, measure, ratio, reason, reference_of, rotated
from gradbench.errors import GradbenchError

CPU = torch.device("cpu")
TINY = Settings("small_cnn", batch=2, image_size=8, threads=1)


class Clock:
    """A clock that only contenders move."""

    def __init__(self, monkeypatch):
        self.now, self.order = 0.0, []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def contender(self, name: str, seconds: float, images: int = 1) -> Contender:
        def run():
            self.now += seconds
            self.order.append(name)

        return Contender(name, run, images)


def test_seconds_are_those_of_one_image(monkeypatch):
    clock = Clock(monkeypatch)
    found = measure([clock.contender("a", 2.0, images=4)], 3, CPU)
    assert found.seconds == {"a": [0.5, 0.5, 0.5]}
    assert found.calls == {"a": 1}
    assert len(clock.order) == 4


def test_a_short_run_is_repeated_within_a_measurement(monkeypatch):
    clock = Clock(monkeypatch)
    found = measure([clock.contender("a", timing.SECONDS / 4)], 2, CPU)
    assert found.calls == {"a": 4}
    assert found.seconds["a"] == pytest.approx([timing.SECONDS / 4] * 2)
    assert len(clock.order) == 2 + 2 * 4


def test_contenders_take_turns_and_every_one_begins_a_round(monkeypatch):
    clock = Clock(monkeypatch)
    measure([clock.contender(name, 5.0) for name in "abc"], 3, CPU)
    assert "".join(clock.order) == "abc" + "abc" + "bca" + "cab"
    assert rotated([], 2) == []


def test_a_contender_that_fails_is_left_out_and_the_others_go_on(monkeypatch):
    clock = Clock(monkeypatch)
    tries = []

    def fails_later():
        tries.append(1)
        if len(tries) == 3:
            raise RuntimeError("no more\nof this")
        clock.now += 5.0

    def fails():
        raise Unavailable("not for this network")

    failing = [Contender("later", fails_later, 1), Contender("at once", fails, 1)]
    found = measure([*failing, clock.contender("ok", 5.0)], 4, CPU)
    assert found.failed == {
        "later": "RuntimeError: no more of this",
        "at once": "not for this network",
    }
    assert found.seconds == {"ok": [5.0] * 4}
    assert len(tries) == 3


def test_reasons_fit_a_line():
    assert reason(torch.OutOfMemoryError("CUDA out of memory. Tried …")) == "out of memory"
    text = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"
    assert reason(RuntimeError(text)) == "out of memory"
    assert len(reason(ValueError("x" * 1000))) < 150


def test_ratios_are_taken_within_a_round():
    # the machine is twice as slow in the second round: the ratio does not see it
    assert ratio([3.0, 6.0, 3.3], [2.0, 4.0, 2.0]) == Ratio(1.5, 1.5, 1.65)


def test_the_reference_is_the_step_with_the_smaller_median():
    seconds = {"step": [1.0, 5.0, 1.0], "step_channels_last": [2.0, 0.1, 2.0], "engine": [0.1] * 3}
    steps = ("step", "step_channels_last")
    assert reference_of(seconds, steps) == "step"
    del seconds["step"]
    assert reference_of(seconds, steps) == "step_channels_last"


def test_the_relative_difference_of_the_worst_image_and_of_the_best_quarter():
    reference = torch.tensor([[1.0, 4.0], [2.0, 100.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    assert difference(reference, reference) == (0, 0)
    wrong = reference * torch.tensor([[1.5], [1.25], [1.0], [1.125], [2.0]])
    assert difference(wrong, reference) == (1.0, 0.125)
    assert difference(wrong[:3], reference) == (0.5, 0.0)
    wrong[0, 0] = torch.nan
    assert difference(wrong, reference).largest == float("inf")


def test_differences_of_the_least_norms_count_against_a_share_of_the_largest():
    reference = torch.tensor([[1e-12, 1.0]])
    found = difference(torch.tensor([[2e-9, 1.0]]), reference)
    assert found.largest == pytest.approx(2e-3, rel=0.01)


def test_a_relu_at_its_kink_is_no_disagreement_and_a_wrong_formula_is():
    assert agrees(Difference(1e-5, 1e-6), "float32") is True
    assert agrees(Difference(1e-2, 1e-6), "float32") is True
    assert agrees(Difference(1e-2, 1e-2), "float32") is False
    assert agrees(Difference(0.5, 1e-6), "float32") is False
    assert agrees(Difference(1e-5, 1e-6), "float64") is False


def test_only_full_precision_is_judged():
    assert agrees(Difference(0.5, 0.5), "bfloat16") is None
    assert agrees(None, "float32") is None


def _lines(**changes) -> list[Line]:
    names = ("forward", "step", "step_channels_last", "engine", "backpack")
    timed = Measured(
        seconds={"step": [2.0, 2.0], "step_channels_last": [1.0, 2.0], "engine": [1.5, 1.5]},
        calls=dict.fromkeys(names, 1),
    )
    given = {
        "names": names[1:],
        "contenders": {n: Contender(n, lambda: None, 4, f"of {n}") for n in names},
        "timed": timed,
        "memory": {"step": 30.0, "step_channels_last": 20.0, "engine": 25.0, "backpack": 90.0},
        "differences": {"engine": Difference(0.5, 0.5)},
        "failed": {"backpack": "no rule"},
        "precision": "float32",
    } | changes
    return lines(**given)


def test_lines_put_together_what_was_measured():
    found, reference = _lines()
    assert reference == "step_channels_last"
    _, step, engine, backpack = found
    assert step.ratio == Ratio(1.0, 1.0, 1.0)
    assert step.note == "what the ratios are taken to"
    assert engine.ratio == Ratio(1.125, 0.75, 1.5)
    assert engine.images_per_second == pytest.approx(1 / 1.5)
    assert (engine.memory_ratio, engine.agrees, engine.note) == (1.25, False, "of engine")
    assert backpack == Line("backpack", memory_mib=90.0, note="no rule")
    text = table(found)
    assert "DISAGREES with the engine; of engine" in text
    assert "0.75–1.50" in text
    assert text.count("\n") == 4


def test_without_a_step_there_are_no_ratios():
    with pytest.raises(GradbenchError, match=r"the ordinary step.* out of memory"):
        _lines(timed=Measured(), failed={"step": "out of memory"})


def test_a_file_name_spells_the_condition():
    known = Settings("torchvision:vit_b_16", None, 8, 224, "cuda:0", 4, "bfloat16")
    assert file_stem("engine", known, "NVIDIA H100 80GB") == (
        "engine-torchvision_vit_b_16-b8-224px-cuda-nvidia_h100_80gb-bfloat16"
    )
    assert file_stem("engine", Settings(width=16, threads=1)).endswith("-cpu-1thread-float32")


def test_a_csv_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a.csv"
    write([dict.fromkeys(COLUMNS) | {"contender": "x", "changed": True, "ratio": 1 / 3}], path)
    with open(path, encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["contender"], row["changed"], row["ratio"]) == ("x", "yes", "0.33333")
    assert tuple(row) == COLUMNS
    with pytest.raises(ValueError, match="unknown"):
        write([{"unknown": 1}], path)
    assert "0.33333" in path.read_text()
    with pytest.raises(GradbenchError, match="cannot write"):
        write([], tmp_path / "nowhere" / "a.csv")


def test_network_and_images_are_the_same_every_time():
    settings = networks.complete(TINY)
    assert settings.width == 16
    model, images = networks.make(settings)
    again, same = networks.make(settings)
    assert torch.equal(images, same)
    assert images.shape == (2, 3, 8, 8)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert not any(m.training for m in model.modules())
    assert model.bn1.momentum == nn.BatchNorm2d(1).momentum
    # statistics are those of the images
    first = model.conv1(networks.make(Settings("small_cnn", batch=8, image_size=8, threads=1))[1])
    torch.testing.assert_close(model.bn1.running_mean, first.mean((0, 2, 3)))


def test_double_precision_is_the_models_own():
    model, images = networks.make(Settings("small_cnn", batch=2, image_size=8, precision="float64"))
    assert images.dtype == model.fc.weight.dtype == torch.float64


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_numerics_come_and_go(precision, before):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    usual = matmul.allow_tf32, cudnn.allow_tf32
    weight = torch.ones(2, 2)
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = before
        with networks.numerics(Settings(precision=precision)):
            assert matmul.allow_tf32 == cudnn.allow_tf32 == (precision == "tf32")
            low = precision == "bfloat16"
            assert (weight @ weight).dtype == (torch.bfloat16 if low else torch.float32)
        assert matmul.allow_tf32 == cudnn.allow_tf32 == before
        assert (weight @ weight).dtype == torch.float32
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = usual


def test_backpack_says_what_it_has_no_rule_for():
    pytest.importorskip("backpack")
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.LayerNorm(6), nn.Linear(6, 3)).eval()
    contender = prepare("backpack", model, torch.rand(2, 3, 2, 2), Settings())
    with pytest.raises(Unavailable, match=r"^no norms for 2 of 6 tensors, 2\.weight among them$"):
        contender.run()


def test_contenders_leave_the_model_as_it_is():
    pytest.importorskip("backpack")
    model, images = networks.make(TINY)
    before = {name: (p, p.clone()) for name, p in model.named_parameters()}
    for name in ("forward", "step", "step_channels_last", "vmap", "backpack", "loop"):
        prepare(name, model, images, TINY).run()
    for name, p in model.named_parameters():
        assert p is before[name][0]
        assert torch.equal(p, before[name][1])
        assert p.grad is None
        assert p.is_contiguous()
        assert not hasattr(p, "batch_l2")
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())


@pytest.mark.skipif(not memory.RESET.exists(), reason="counts anew on Linux only")
def test_peak_memory_is_what_a_run_adds():
    kept = torch.ones(2**23)  # 32 MiB that were there before
    peak = memory.peak_here(lambda: torch.ones(2**24).sum())  # 64 MiB
    assert 60 < peak < 80
    assert kept.sum() == 2**23


def test_a_contender_is_measured_in_a_process_of_its_own(tmp_path, monkeypatch):
    assert memory.peak_in_child("step", Settings("small_cnn", batch=64, threads=1)) > 5
    (tmp_path / "backpack").mkdir()
    (tmp_path / "backpack" / "__init__.py").write_text("raise ImportError('too old')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(Unavailable, match=r"^cannot be imported: too old$"):
        memory.peak_in_child("backpack", TINY)


def test_a_process_that_dies_is_a_reason(monkeypatch, tmp_path):
    script = tmp_path / "dies"
    script.write_text("#!/bin/sh\nkill -9 $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(memory.Killed, match="killed by signal 9, most likely for want of memory"):
        memory.peak_in_child("step", TINY)
    Path(script).write_text("#!/bin/sh\necho 'what went wrong' >&2\nexit 3\n")
    with pytest.raises(memory.Killed, match="ended with code 3: what went wrong"):
        memory.peak_in_child("step", TINY)
