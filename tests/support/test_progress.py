"""What is told of long work, and when."""

import io
import sys
import time

import pytest

from gradbench.support import progress
from gradbench.support.progress import Progress, duration, say, step


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that is set by hand; nothing is told but by `look`."""
    now = [100.0]
    monkeypatch.setattr(progress._Watch, "_look", lambda self: None)
    monkeypatch.setattr(progress._WATCH, "spoken", 0.0)
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


def look(clock, seconds):
    """Let seconds go by, with a look at the open steps four times in each."""
    for _ in range(round(4 * seconds)):
        clock[0] += 0.25
        progress._WATCH.tell(clock[0])


def told(capsys):
    return capsys.readouterr().err.splitlines()


def test_a_step_of_two_seconds_tells_what_it_does(clock, capsys):
    with step("loading cifar10"):
        look(clock, 1.25)
        assert told(capsys) == []
        look(clock, 0.75)
        assert told(capsys) == ["loading cifar10 …"]
        look(clock, 29)
        assert told(capsys) == []
        look(clock, 60)
        assert told(capsys) == ["loading cifar10 … (32 s)", "loading cifar10 … (62 s)"]
    look(clock, 60)
    assert told(capsys) == []


def test_the_innermost_step_speaks(clock, capsys):
    with step("measuring svhn"), Progress("outputs of svhn", 1000) as bar:
        look(clock, 4)
        assert told(capsys) == ["outputs of svhn: 0 of 1000 images"]
        look(clock, 30)
        assert told(capsys) == ["outputs of svhn: 0 of 1000 images, 32 s"]
        clock[0] += 30
        bar.advance(500)
        assert told(capsys) == ["outputs of svhn: 500 of 1000 images, 7.81 a second, 64 s left"]


def test_many_short_steps_are_told_by_the_one_around_them(clock, capsys):
    with step("measuring svhn"):
        for _ in range(40):
            with step("fitting"):
                look(clock, 1)
    assert told(capsys) == ["measuring svhn …", "measuring svhn … (32 s)"]


def test_a_step_is_silent_while_others_speak(clock, capsys):
    with step("measuring svhn"):
        for _ in range(3):
            with step("fitting"):
                look(clock, 6)
            look(clock, 0.25)
    assert told(capsys) == ["fitting …"] * 3


def test_what_another_process_tells_is_not_told_twice(clock, capsys):
    with Progress("training", 10, shown=False):
        look(clock, 60)
    assert told(capsys) == []


def test_a_call_that_blocks_is_told_by_the_thread(monkeypatch, capsys):
    monkeypatch.setattr(progress, "TICK", 0.01)
    monkeypatch.setattr(progress, "INNERMOST_SECONDS", 0.0)
    with step("sleeping"):
        deadline = time.monotonic() + 10
        while "sleeping …" not in (said := capsys.readouterr().err) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert said == "sleeping …\n"
    while progress._WATCH.thread is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert progress._WATCH.thread is None  # it ends with the last step


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
