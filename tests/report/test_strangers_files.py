"""Many damaged run folders: each is shown, or refused in one sentence."""

import contextlib
import copy
import io
import json
import random

import pytest
from _runs import copy_of
from _scored import finished

from gradbench.errors import GradbenchError
from gradbench.predict.saved_network import open_run
from gradbench.report.finished_run import FinishedRun, seal
from gradbench.report.page import open_runs, report
from gradbench.report.run_folder import terminal

pytestmark = pytest.mark.slow

WRONG = (
    *(None, True, 3, -1, 2**70, 10**400, 1.5, float("nan"), float("inf"), "", "x", "\x1b[31mred"),
    *("\ud800", "a\nb", "\0", "$a$^_", "<b>", "=1+1", "9" * 5000, [], {}, [None], {"a": 1}, [[[]]]),
)
CELLS = (
    *("", "nan", "1e999", "-1", "9" * 400, "9" * 20, "\x1b[31m", "\0", '"', "inf", "1_0", "all"),
    *("networks", "mean", "auroc", "percent", "control", "0", "=1", "\u202e"),
)
FILES = ("run.json", "model/s0/model.json", "results.csv", "costs.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return finished(tmp_path_factory.getbasetemp()) / "run"


def ways(value, way=()):
    """Return the ways to everything in some data, the shallow ones first."""
    found = []
    if isinstance(value, list):
        value = dict(enumerate(value))
    for name, inner in value.items() if isinstance(value, dict) else ():
        found += [(*way, name), *ways(inner, (*way, name))]
    return sorted(found, key=len)


def other_data(rng, text):
    """Drop, rename or replace something in a JSON file."""
    data = json.loads(text)
    every = ways(data)
    *way, last = rng.choice(every[: rng.choice((20, 60, len(every)))])
    place = data
    for name in way:
        place = place[name]
    how = rng.random()
    if how < 0.3:
        del place[last]
    elif how < 0.4 and isinstance(place, dict):
        place[rng.choice(("\x1b[1m", "", "\ud800", "a\nb", "x" * 300))] = place.pop(last)
    else:
        place[last] = copy.deepcopy(rng.choice(WRONG))
    return json.dumps(data).encode()


def other_cells(rng, text):
    """Change cells of a CSV file, lengthen or shorten rows."""
    lines = text.split("\n")
    for _ in range(rng.choice((1, 2, 30))):
        at = rng.randrange(len(lines) - 1)
        cells = lines[at].split(",")
        how = rng.random()
        if how < 0.1:
            cells += ["more"] * 3
        elif how < 0.2:
            cells = cells[: rng.randrange(len(cells))]
        else:
            cells[rng.randrange(len(cells))] = rng.choice(CELLS)
        lines[at] = ",".join(cells)
    return "\n".join(lines).encode()


def other_bytes(rng, text):
    """Cut, flip, insert or drop bytes."""
    content = bytearray(text.encode())
    at, how = rng.randrange(len(content)), rng.random()
    if how < 0.3:
        del content[at:]
    elif how < 0.6:
        content[at] = rng.randrange(256)
    elif how < 0.8:
        content[at:at] = rng.choice((b"\0", b"\xff\xfe", b",,,,", b'"', b"\n\n", b"{", b"]]]"))
    else:
        del content[at : at + rng.randrange(1, 300)]
    return bytes(content)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_are_shown_or_refused_in_one_sentence(folder, tmp_path, seed):
    rng = random.Random(seed)
    run = copy_of(folder, tmp_path / "run")
    whole = {name: (run / name).read_text() for name in FILES}
    shown, refused = [], []
    for number in range(30):
        for name, text in whole.items():
            (run / name).write_text(text)
        name = rng.choice((*FILES, "run.json", "results.csv"))
        change = other_data if name.endswith(".json") else other_cells
        change = rng.choice((change, change, other_bytes))
        (run / name).write_bytes(change(rng, whole[name]))
        if name != "run.json":
            seal(run)  # or all that is seen would be that it is another file
        looks = {
            "show": lambda: terminal(run),
            "show --all": lambda: FinishedRun(run).text("table.md"),
            "score": lambda: str(open_run(run)),
        }
        if (name == "costs.csv" and number % 3 == 0) or number % 15 == 0:
            looks["report"] = lambda: report(open_runs([run]), "")
        for command, look in looks.items():
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    shown.append(look())
            except GradbenchError as told:
                refused.append(str(told))
            except Exception as fault:
                kept = (run / name).read_bytes()
                raise AssertionError(f"{command} of {name}: {kept[:2000]!r}") from fault
    assert min(len(shown), len(refused)) > 10
    assert all(line.isprintable() for text in shown for line in text.split("\n"))
    assert not any("\n" in text or len(text) > 1000 for text in refused)
