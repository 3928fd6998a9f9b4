"""Memory: chunks are halved when it does not suffice, and nothing piles up."""

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gradbench.errors import GradbenchError
from gradbench.gradients import alignments, squared_norms
from gradbench.gradients.memory import in_chunks

pytestmark = pytest.mark.slow


class Tight(nn.Module):
    """A network on a device with memory for a few images, in the forward or the backward pass."""

    def __init__(self, images: int, backward: bool = False, fault: Exception | None = None):
        super().__init__()
        self.conv, self.scale = nn.Conv2d(1, 4, 3), nn.Parameter(torch.ones(1))
        self.fc = nn.Linear(64, 3)
        self.images, self.backward = images, backward
        self.fault = fault or torch.OutOfMemoryError("out of memory")

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.conv(x)) * self.scale.exp()
        if self.backward and x.requires_grad:
            x.register_hook(self.check)
        elif not self.backward:
            self.check(x)
        return self.fc(x.flatten(1))

    def check(self, x: Tensor) -> None:
        if len(x) > self.images:
            raise self.fault


def images(count: int = 11) -> Tensor:
    return torch.rand(count, 1, 6, 6, dtype=torch.float64)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(
    ("fits", "chunk", "halvings"), [(11, 8, 0), (4, 8, 1), (3, 8, 2), (1, 8, 3), (2, 11, 2)]
)
def test_the_chunk_halves_and_the_work_goes_on(fits, chunk, halvings, backward):
    model, batch = Tight(fits, backward).double().eval(), images()
    found = squared_norms(model, batch, chunk=chunk)
    assert (found.halvings, found.chunk) == (halvings, chunk)
    model.images = 99
    expected = squared_norms(model, batch, chunk=chunk)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.outputs, expected.outputs)
    assert expected.halvings == 0


def test_inner_products_go_on_too():
    model, batch = Tight(3).double().eval(), images()
    directions = {"conv.weight": torch.randn(4, 1, 3, 3).double(), "scale": torch.ones(1).double()}
    found = alignments(model, batch, directions, chunk=8)
    assert found.halvings == 2
    model.images = 99
    expected = alignments(model, batch, directions)
    torch.testing.assert_close(found.products, expected.products, rtol=1e-9, atol=1e-15)


def test_later_chunks_stay_small():
    model, seen = Tight(3).double().eval(), []
    model.conv.register_forward_hook(lambda m, i, o: seen.append(len(o)))
    squared_norms(model, images(), chunk=8)
    assert seen == [8, 4, 2, 2, 2, 2, 2, 1]


def test_one_image_that_does_not_fit():
    model = Tight(0).double().eval()
    before = {n: p.clone() for n, p in model.named_parameters()}
    with pytest.raises(GradbenchError, match=r"one image of shape \(1, 6, 6\) does not fit"):
        squared_norms(model, images(), chunk=4)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_the_words_of_a_cpu_that_is_out_of_memory():
    fault = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 64 bytes")
    model = Tight(4, fault=fault).double().eval()
    assert squared_norms(model, images(), chunk=11).halvings == 2


def test_other_faults_are_not_swallowed():
    model = Tight(4, fault=RuntimeError("shapes cannot be multiplied")).double().eval()
    with pytest.raises(RuntimeError, match="shapes cannot"):
        squared_norms(model, images(), chunk=11)


def test_in_chunks_keeps_the_order():
    def run(piece: Tensor) -> list[float]:
        if len(piece) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return piece.tolist()

    results, halvings = in_chunks(run, torch.arange(10.0), 7)
    assert results == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert halvings == 1


class Watch(TorchDispatchMode):
    """Counts bytes of the storages met inside, but for that of the images, and the most at once."""

    def __init__(self, batch: Tensor):
        super().__init__()
        self.alive, self.most, self.known = 0, 0, {batch.untyped_storage()._cdata}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, Tensor):
                self.note(tensor.untyped_storage())
        return result

    def note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.alive += size
        self.most = max(self.most, self.alive)
        weakref.finalize(storage, self.forget, key, size)

    def forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.alive -= size


def deep(layers: int = 6) -> nn.Module:
    body = [layer for _ in range(layers) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())]
    return nn.Sequential(nn.Conv2d(1, 4, 3), *body, nn.Flatten(), nn.Linear(1600, 3)).eval()


def peak(count: int, chunk: int, **options) -> int:
    batch = torch.rand(count, 1, 22, 22)
    model = deep()
    gc.collect()
    with Watch(batch) as watch:
        squared_norms(model, batch, chunk=chunk, **options)
    return watch.most


@pytest.mark.parametrize("options", [{}, {"routes": "one image at a time"}])
def test_peak_memory_does_not_grow_with_the_number_of_images(options):
    few, many = peak(8, 4, **options), peak(48, 4, **options)
    activations = 4 * 4 * 1600 * 4  # of one layer for one chunk, in bytes
    assert few > activations
    assert many < 1.05 * few
    if not options:
        assert peak(48, 24, **options) > 3 * few


@pytest.mark.parametrize("where", [None, "forward", "backward", "loss", "memory"])
def test_nothing_is_kept_alive_even_after_errors(where):
    model, kept, passes = Tight(99).double().eval(), [], []

    def fail(place: str) -> None:
        if where == place and len(passes) >= 2:
            raise ValueError("half-way")

    def hook(module, inputs, output):
        kept.append(weakref.ref(output))
        passes.append(1)
        fail("forward")
        if output.requires_grad:
            output.register_hook(lambda gradient: fail("backward"))

    def loss(z: Tensor) -> Tensor:
        fail("loss")
        if where == "memory" and len(z) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return z.square().sum(1)

    model.conv.register_forward_hook(hook)
    batch = images()
    gc.collect()
    gc.disable()
    try:
        if where in (None, "memory"):
            found = squared_norms(model, batch, loss=loss, chunk=4)
            assert found.halvings == (where == "memory")
            assert not found.values.requires_grad
            assert not found.outputs.requires_grad
        else:
            with pytest.raises(ValueError, match="half-way"):
                squared_norms(model, batch, loss=loss, chunk=4)
        assert len(kept) >= 2
        assert [ref() for ref in kept] == [None] * len(kept)
    finally:
        gc.enable()
