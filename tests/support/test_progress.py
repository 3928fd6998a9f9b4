import io
import sys

import pytest

from gradbench.support import progress
from gradbench.support.progress import Progress, duration, say


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_short_work_says_nothing(clock, capsys):
    with Progress("counting", 10) as bar:
        for _ in range(10):
            clock[0] += 1
            bar.advance(1)
    assert capsys.readouterr().err == ""


def test_plain_lines_come_every_thirty_seconds_and_at_the_end(clock, capsys):
    with Progress("counting", 100, "steps") as bar:
        for _ in range(100):
            clock[0] += 1
            bar.advance(1, note="loss 2")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" steps")[0] for line in lines] == [
        f"counting: {n} of 100" for n in (30, 60, 90, 100)
    ]
    assert lines[0].endswith("1 a second, 70 s left, loss 2")
    assert "0 s left" in lines[-1]


def test_rate_of_a_resumed_run_leaves_out_what_was_done_before(clock, capsys):
    with Progress("training", 200, "steps", done=100) as bar:
        clock[0] += 50
        bar.advance(50)
    assert "150 of 200 steps, 1 a second, 50 s left" in capsys.readouterr().err


def test_a_terminal_gets_a_bar_with_the_count(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("counting", 4) as bar:
        bar.advance(4, note="done")
        say("a line between")
    assert "counting" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()
    assert "a line between\n" in terminal.getvalue()


def test_say_writes_a_line_to_standard_error_alone(capsys):
    say("hello")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "hello\n")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (7200, "2.0 h")],
)
def test_duration(seconds, words):
    assert duration(seconds) == words
