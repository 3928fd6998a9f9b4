"""Worker processes, one for each of several devices, that share work and sum over their parts.

The words are those of `torch.distributed`: a worker has a rank among `world_size` processes.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from gradbench.backbones.devices import set_exact_arithmetic
from gradbench.errors import GradbenchError
from gradbench.support.memory import keep_freed_memory

GRACE = 5.0
"""Seconds that a worker is given to end by itself."""
COLLECTIVE_TIMEOUT = timedelta(hours=1)
"""Seconds that a worker waits for the others within a call; one that died is noticed at once."""


@dataclass
class Worker:
    """One of several processes that work together, or a process that works alone.

    Rank 0 alone writes, reports progress and returns results; `received` holds the object that the
    pool broadcast last, by its name.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    received: dict[str, Any] = field(default_factory=dict)

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """Return this worker's part of `count` items: in order of ranks, of nearly equal sizes.

        >>> [Worker(torch.device("cpu"), rank, 3).shard(7) for rank in range(3)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
        """
        begin, end = (rank * count // self.world_size for rank in (self.rank, self.rank + 1))
        return slice(begin, end)

    def all_reduce(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums over all workers of tensors of one type, sent in a single message.

        A process that works alone gets the tensors themselves.
        """
        if self.world_size == 1:
            return list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors)]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all workers in order of ranks on rank 0, an empty list elsewhere."""
        values: list[Any] = [None] * self.world_size if self.is_main else []
        distributed.gather_object(value, values or None, dst=0)
        return values


class WorkerPool:
    """A worker process for each of several devices, used as a context manager.

    The processes are started by the first call and wait between calls. The process that started
    them holds the locks of the store and writes its products; of the workers, rank 0 alone writes
    (the checkpoint of training). A worker that dies or raises ends all of them.
    """

    def __init__(self, devices: Sequence[torch.device]):
        self.devices = tuple(devices)
        self._workers: list[tuple[BaseProcess, Connection]] = []
        self._rendezvous: tempfile.TemporaryDirectory | None = None
        self._broadcast = ""

    def __len__(self) -> int:
        return len(self.devices)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind, *_):
        self.close(at_once=kind is not None)

    def call(self, activity: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Have every worker call `function(worker, *arguments)`; return what rank 0 returned.

        The function stands in a module, and all arguments can be pickled; `activity` is for
        messages.

        Raises:
            GradbenchError: if a worker dies or raises, or an argument cannot be pickled.
        """
        try:
            message = pickle.dumps((function, arguments))
        except (pickle.PicklingError, AttributeError, TypeError, RuntimeError) as fault:
            raise GradbenchError(
                f"devices={len(self)}: what {activity} needs cannot be sent to other processes "
                f"({str(fault).partition(chr(10))[0]}); take devices=1"
            ) from fault
        if not self._workers:
            self._start()
        for rank, (_, pipe) in enumerate(self._workers):
            try:
                pipe.send_bytes(message)
            except OSError:
                raise self._failure(activity, rank) from None
        return self._result(activity)

    def broadcast(self, name: str, value: Any) -> None:
        """Have every worker keep a value under a name, in place of the one that it kept before."""
        self.call("taking over the network", _receive, name, value)
        self._broadcast = name

    def holds(self, name: str) -> bool:
        """Tell whether the workers keep the value of this name."""
        return self._broadcast == name

    def close(self, at_once: bool = False) -> None:
        """End the workers; the next call would start new ones."""
        for process, pipe in self._workers:
            if at_once:
                process.kill()
            else:
                with suppress(OSError):  # of one that is gone already
                    pipe.send_bytes(pickle.dumps(None))
        for process, pipe in self._workers:
            process.join(GRACE)
            process.kill()
            process.join()
            pipe.close()
        self._workers, self._broadcast = [], ""
        if self._rendezvous is not None:
            self._rendezvous.cleanup()
            self._rendezvous = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
        self._rendezvous = tempfile.TemporaryDirectory(prefix="gradbench-")
        file = str(Path(self._rendezvous.name) / "rendezvous")
        threads = max(1, torch.get_num_threads() // len(self))
        for rank, device in enumerate(self.devices):
            ours, theirs = context.Pipe()
            worker = Worker(device, rank, len(self))
            arguments = (theirs, worker, threads, file)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._workers.append((process, ours))

    def _result(self, activity: str) -> Any:
        """Wait for all workers, whose death ends the wait too, and return the result of rank 0."""
        pipes = {pipe: rank for rank, (_, pipe) in enumerate(self._workers)}
        sentinels = {process.sentinel: rank for rank, (process, _) in enumerate(self._workers)}
        result = None
        while pipes:
            ready = wait([*pipes, *sentinels])
            for pipe in [one for one in ready if one in pipes]:
                rank = pipes.pop(pipe)
                try:
                    kind, value = pickle.loads(pipe.recv_bytes())
                except (EOFError, OSError):
                    raise self._failure(activity, rank) from None
                if kind == "sentence":
                    self.close(at_once=True)
                    raise GradbenchError(value)
                if kind == "exception":
                    raise self._failure(activity, rank, value)
                result = value if rank == 0 else result
            if dead := [sentinels[one] for one in ready if one in sentinels]:
                raise self._failure(activity, dead[0])
        return result

    def _failure(self, activity: str, rank: int, raised: str = "") -> GradbenchError:
        """End all workers because one of them died, or raised an exception."""
        sentinels = [process.sentinel for process, _ in self._workers]
        # a worker may raise because another one died: then that one is the culprit
        if dead := wait(sentinels, timeout=1.0 if raised else GRACE):
            rank = sentinels.index(dead[0])
            process, _ = self._workers[rank]
            process.join()
            code = process.exitcode
            cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            fate = (
                f"died in {activity} ({cause}): finished products are kept, and the same command "
                "goes on from there"
            )
        else:
            fate = f"failed in {activity}: {raised or 'no answer'}; finished products are kept"
        self.close(at_once=True)
        return GradbenchError(f"worker {rank + 1} of {len(self)} ({self.devices[rank]}) {fate}")


def _receive(worker: Worker, name: str, value: Any) -> None:
    worker.received = {name: value}


def _serve(pipe: Connection, worker: Worker, threads: int, rendezvous: str) -> None:
    """Carry out the calls that come through a pipe until it is closed; runs in a worker process.

    The pipe brings pickled (function, arguments), None at the end, and takes pickled (kind, value)
    of kind `result`, `sentence` (text of a GradbenchError) or `exception` (of another one).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    set_exact_arithmetic()
    keep_freed_memory()
    _join(worker, rendezvous)
    with suppress(EOFError):  # the parent is gone
        while call := pickle.loads(pipe.recv_bytes()):
            function, arguments = call
            try:
                value = function(worker, *arguments)
                reply = "result", value if worker.is_main else None
            except GradbenchError as fault:
                reply = "sentence", str(fault)
            except Exception as fault:
                first_line = (str(fault).strip().splitlines() or [""])[0]
                reply = "exception", f"{type(fault).__name__}: {first_line}"
            pipe.send_bytes(pickle.dumps(reply))
    distributed.destroy_process_group()


def _join(worker: Worker, rendezvous: str) -> None:
    if worker.device.type == "cuda":
        torch.cuda.set_device(worker.device)
    # gloo resolves the machine's name, which need not lead anywhere: we are all on this machine
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    if loopback:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback[0])
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if worker.device.type == "cuda" else "gloo",
        store=distributed.FileStore(rendezvous, worker.world_size),
        rank=worker.rank,
        world_size=worker.world_size,
        timeout=COLLECTIVE_TIMEOUT,
    )


def _end_with_parent() -> None:
    """End this process when its parent is gone, so that nobody writes beside a run begun anew."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
