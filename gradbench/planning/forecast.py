"""How long a run would take, from its settings alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from gradbench.config import compose
from gradbench.errors import GradbenchError
from gradbench.planning.plan import plan
from gradbench.run.experiment import read
from gradbench.store import Store


def forecast(words: Sequence[str], dirs: Iterable[Path] = ()) -> tuple[float, list[str]]:
    """Return the seconds of all steps of a run, and what cannot be told or will not be done.

    Args:
        words: settings of `gradbench run`.
        dirs: folders of the user's own configuration files.

    Raises:
        GradbenchError: for settings that a run would refuse.
    """
    experiment = read(compose(words, dirs), dirs)
    store = Store(Path(experiment.config["store"]).expanduser())
    try:
        lines = plan(experiment, store)
    except GradbenchError as reason:  # one damaged set leaves the other runs of a plan as they are
        return 0.0, [f"will not be made: {reason}"]
    told = [line for line in lines if line.note and not line.parts]
    return sum(line.seconds for line in lines), [f"{line.what}: {line.note}" for line in told]
