"""What a worker process does: joins the others, carries out calls, ends with its parent."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import threading
from datetime import timedelta
from multiprocessing.connection import Connection

import torch
from torch import distributed

from gradbench.backbones.devices import exact_arithmetic
from gradbench.backbones.worker import Worker
from gradbench.errors import GradbenchError
from gradbench.support.memory import keep_freed_memory

PATIENCE = timedelta(hours=1)
"""So long a worker waits for another in the middle of a call; one that died is noticed at once."""


def serve(pipe: Connection, rank: int, of: int, device: str, threads: int, meeting: str) -> None:
    """Carry out calls that come through a pipe until it is closed.

    Args:
        pipe: brings pickled (function, arguments), None at the end; takes pickled (kind, value),
            of kind `done`, `told` (a GradbenchError's text) or `fault` (another exception's).
        rank: of this process.
        of: how many there are.
        device: that it works on.
        threads: of torch.
        meeting: file by which they find each other.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    exact_arithmetic()
    keep_freed_memory()
    worker = Worker(rank, of, torch.device(device))
    _join(worker, meeting)
    while True:
        try:
            call = pickle.loads(pipe.recv_bytes())
        except EOFError:
            break
        if call is None:
            break
        pipe.send_bytes(pickle.dumps(_answer(worker, *call)))
    distributed.destroy_process_group()


def _answer(worker: Worker, task, arguments) -> tuple[str, object]:
    try:
        value = task(worker, *arguments)
    except GradbenchError as fault:
        return "told", str(fault)
    except Exception as fault:
        first = (str(fault).strip().splitlines() or [""])[0]
        return "fault", f"{type(fault).__name__}: {first}"
    return "done", value if worker.first else None


def _join(worker: Worker, meeting: str) -> None:
    if worker.device.type == "cuda":
        torch.cuda.set_device(worker.device)
    # gloo looks for the machine's name, which need not lead anywhere: we are all on this machine
    inside = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    if inside:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", inside[0])
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if worker.device.type == "cuda" else "gloo",
        store=distributed.FileStore(meeting, worker.of),
        rank=worker.rank,
        world_size=worker.of,
        timeout=PATIENCE,
    )


def _end_with_parent() -> None:
    """End this process when its parent is gone, so that nobody writes beside a run begun anew."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
