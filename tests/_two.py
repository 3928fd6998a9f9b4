"""Workers for the tests of `devices=N`, and calls that a worker can be sent."""

import os
import signal

import torch

CPU = torch.device("cpu")


def ranks(worker, add):
    """Return what every worker is."""
    return worker.gather(
        (worker.rank + add, worker.world_size, torch.get_num_threads(), os.getpid())
    )


def raise_in_one(worker, fault):
    """Raise in the second worker while the first waits for it."""
    if worker.rank == 1:
        raise fault
    return worker.gather(0)


def die_in_one(worker):
    """Be killed in the second worker while the first waits for it."""
    if worker.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return worker.gather(0)


def sums(worker):
    """Return the sums over the workers of two tensors."""
    tensors = [torch.full((2, 3), float(worker.rank + 1)), torch.tensor(10.0 * worker.rank)]
    return worker.all_reduce(tensors)


def normalised(worker, norm, images, back):
    """Return outputs and gradients of a batch-norm layer whose batch is shared out.

    The gradient is that of (outputs * back).sum(), by the images and by the parameters.
    """
    from gradbench.backbones.batch_norm import synchronise_batch_norm

    network = torch.nn.Sequential(norm)
    synchronise_batch_norm(network, worker.device)
    rows = slice(0, 3) if worker.is_main else slice(3, None)  # shares of two sizes
    own = images[rows].clone().requires_grad_()
    out = network(own)
    wanted = [own, *network.parameters()]
    grads = torch.autograd.grad((out * back[rows]).sum(), wanted)
    parts = worker.gather((out.detach(), grads[0]))
    totals = worker.all_reduce(grads[1:])
    return parts, totals, {n: t.clone() for n, t in network.state_dict().items()}


def with_batch_norm():
    """Return a small network with batch norm."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3), torch.nn.BatchNorm2d(6), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, 3),
    )  # fmt: skip


def without_batch_norm():
    """Return the same network with its batch norm left out."""
    return torch.nn.Sequential(*[m for m in with_batch_norm() if "BatchNorm" not in str(m)])


def tied():
    """Return a network with a layer under two names and a batch norm under two."""
    layer, norm = torch.nn.Conv2d(6, 6, 3, padding=1), torch.nn.BatchNorm2d(6)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3), norm, layer, layer, norm, torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(6, 3),
    )  # fmt: skip
