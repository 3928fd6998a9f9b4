"""Starts a worker process for each device, has them work together, and watches over them."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

import torch

from gradbench.backbones.worker_process import serve
from gradbench.errors import GradbenchError

GRACE = 5.0
"""Seconds that a worker is given to end by itself."""


class WorkerPool:
    """A worker process for each of several devices, used as a context manager.

    The processes are started by the first call and wait between calls. The process that started
    them holds the locks of the store and writes its products; of the workers, rank 0 alone writes
    (the checkpoint of training). A worker that dies or raises ends all of them.

    Args:
        devices: of the workers; one device may stand there several times.
    """

    def __init__(self, devices: Sequence[torch.device]):
        self.devices = tuple(devices)
        self._workers: list[tuple[BaseProcess, Connection]] = []
        self._meeting: tempfile.TemporaryDirectory | None = None
        self._given = ""

    def __len__(self) -> int:
        return len(self.devices)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind, *_):
        self.close(at_once=kind is not None)

    def call(self, what: str, task: Callable[..., Any], *arguments: Any) -> Any:
        """Have every worker call `task(worker, *arguments)`; return what rank 0 returned.

        Args:
            what: is being done, for messages.
            task: a function of a module.
            arguments: anything that can be pickled.

        Raises:
            GradbenchError: if a worker dies or raises, or an argument cannot be pickled.
        """
        try:
            message = pickle.dumps((task, arguments))
        except (pickle.PicklingError, AttributeError, TypeError, RuntimeError) as fault:
            raise GradbenchError(
                f"devices={len(self)}: what {what} needs cannot be sent to other processes "
                f"({str(fault).partition(chr(10))[0]}); take devices=1"
            ) from fault
        if not self._workers:
            self._start()
        for process, pipe in self._workers:
            try:
                pipe.send_bytes(message)
            except OSError:
                self._lost(what, process)
        return self._answers(what)[0]

    def give(self, name: str, thing: Any) -> None:
        """Have every worker keep a thing under a name, in place of what it kept before."""
        self.call("taking over the network", _keep, name, thing)
        self._given = name

    def has(self, name: str) -> bool:
        """Tell whether the workers keep the thing of a name."""
        return self._given == name

    def close(self, at_once: bool = False) -> None:
        """End the workers; the next call would start new ones."""
        for process, pipe in self._workers:
            if at_once:
                process.kill()
            else:
                try:
                    pipe.send_bytes(pickle.dumps(None))
                except OSError:
                    process.kill()
        for process, pipe in self._workers:
            process.join(GRACE)
            if process.is_alive():
                process.kill()
                process.join()
            pipe.close()
        self._workers, self._given = [], ""
        if self._meeting is not None:
            self._meeting.cleanup()
            self._meeting = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
        self._meeting = tempfile.TemporaryDirectory(prefix="gradbench-")
        meeting = str(Path(self._meeting.name) / "meeting")
        threads = max(1, torch.get_num_threads() // len(self))
        for rank, device in enumerate(self.devices):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=serve,
                args=(theirs, rank, len(self), str(device), threads, meeting),
                daemon=True,
            )
            process.start()
            theirs.close()
            self._workers.append((process, ours))

    def _answers(self, what: str) -> list[Any]:
        """Wait for the answers of all, by rank, and for the death of any."""
        answers: dict[int, Any] = {}
        while len(answers) < len(self):
            open_ones = {p: i for i, (_, p) in enumerate(self._workers) if i not in answers}
            ready = wait([*open_ones, *(process.sentinel for process, _ in self._workers)])
            for pipe in [p for p in ready if p in open_ones]:
                rank = open_ones[pipe]
                try:
                    kind, value = pickle.loads(pipe.recv_bytes())
                except (EOFError, OSError):
                    self._lost(what, self._workers[rank][0])
                if kind != "done":
                    self._failed(what, rank, kind, value)
                answers[rank] = value
            for process, _ in self._workers:
                if process.sentinel in ready:
                    self._lost(what, process)
        return [answers[rank] for rank in range(len(self))]

    def _failed(self, what: str, rank: int, kind: str, text: str) -> NoReturn:
        """Tell of a worker that raised; if it raised because another died, of the other."""
        if kind == "fault":
            dead = wait([process.sentinel for process, _ in self._workers], timeout=1.0)
            for process, _ in self._workers:
                if process.sentinel in dead:
                    self._lost(what, process)
            who = f"worker {rank + 1} of {len(self)} ({self.devices[rank]})"
            text = f"{who} failed in {what}: {text}; finished products are kept"
        self.close(at_once=True)
        raise GradbenchError(text)

    def _lost(self, what: str, process: BaseProcess) -> NoReturn:
        process.join(GRACE)
        rank = [p for p, _ in self._workers].index(process)
        code = process.exitcode
        how = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"
        self.close(at_once=True)
        raise GradbenchError(
            f"worker {rank + 1} of {len(self)} ({self.devices[rank]}) died in {what} ({how}): "
            "finished products are kept, and the same command goes on from there"
        )


def _keep(worker, name: str, thing: Any) -> None:
    worker.kept = {name: thing}
