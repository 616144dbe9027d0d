"""What the person who waits is told, and that no listener can disturb the work."""

import io
import os
import pty
import re
import subprocess
import sys
import textwrap

import pytest

from world4rl import progress
from world4rl.progress import ConsoleReporter, Update, duration, line, session, track


class Listener:
    def __init__(self, interval: float = 0.0) -> None:
        self.interval = interval
        self.updates: list[Update] = []
        self.messages: list[str] = []
        self.values: list[dict] = []
        self.closed: list[BaseException | None] = []

    def updated(self, update):
        self.updates.append(update)

    def logged(self, message):
        self.messages.append(message)

    def measured(self, values):
        self.values.append(dict(values))

    def close(self, error):
        self.closed.append(error)


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    fake = Clock()
    monkeypatch.setattr(progress, "time", fake)
    return fake


def test_a_listener_hears_everything_in_order_and_is_closed_once(clock):
    listener = Listener()
    with session("refine reach-v3", reporters=[listener]):
        with track("imagine", total=4, unit="episode") as bar:
            clock.now += 3
            bar.advance(1, reward=0.5)
            clock.now += 3
            bar.advance(2, reward=0.7, loss=1.0)
        progress.log("halfway")
        progress.metrics({"rate": 0.5})
    assert [u.done for u in listener.updates] == [0, 1, 3, 3]
    assert [u.seconds_left for u in listener.updates] == [None, 9.0, 2.0, 2.0]
    assert listener.updates[-1].finished
    assert not listener.updates[-2].finished
    assert listener.updates[-1].values == {"reward": 0.7, "loss": 1.0}
    assert listener.messages == ["refine reach-v3: started", "halfway", "refine reach-v3: done in 6.0 s"]
    assert listener.values == [{"rate": 0.5}]
    assert listener.closed == [None]


def test_what_a_resumed_trainer_did_before_does_not_flatter_todays_pace(clock):
    listener = Listener()
    with session("t", reporters=[listener]), track("train", total=100, start=80) as bar:
        clock.now += 10
        bar.advance(5)
    assert listener.updates[0].done == 80
    assert listener.updates[1].seconds_left == 30.0


def test_steps_that_take_longer_later_count_for_more(clock):
    listener = Listener()

    def work(steps):
        return steps + 3 * max(0, steps - 10)  # from the eleventh step on, each is as much work as four before

    with session("t", reporters=[listener]), track("train", total=15, work=work) as bar:
        clock.now += 10
        bar.advance(10)
        clock.now += 8
        bar.advance(2)
    assert [u.seconds_left for u in listener.updates[1:3]] == [20.0, 12.0]


def test_a_listener_is_told_no_more_often_than_it_asks(clock):
    slow, fast = Listener(interval=1.0), Listener()
    with session("t", reporters=[slow, fast]), track("train", total=100) as bar:
        for _ in range(100):
            clock.now += 0.1
            bar.advance()
    assert len(fast.updates) == 102
    assert len(slow.updates) <= 12
    assert slow.updates[-1].finished
    assert slow.updates[-1].done == 100


@pytest.mark.parametrize(
    ("error", "word"),
    [(ValueError("x"), "failed"), (KeyboardInterrupt(), "interrupted"), (SystemExit(143), "interrupted")],
)
def test_the_listener_learns_how_it_ended_and_is_closed_on_error(error, word):
    listener = Listener()
    with pytest.raises(type(error)), session("t", reporters=[listener]), track("train", total=3):
        raise error
    assert listener.messages[-1].startswith(f"t: {word} after ")
    assert listener.closed == [error]
    assert listener.updates[-1].finished
    with session("again", reporters=[]):
        pass


def test_a_listener_that_fails_is_dropped_and_the_work_goes_on(capsys):
    class Broken(Listener):
        def updated(self, update):
            raise BrokenPipeError("gone")

    broken, listener = Broken(), Listener()
    with session("t", reporters=[broken, listener]), track("train", total=3) as bar:
        bar.advance(3)
    assert [u.done for u in listener.updates] == [0, 3, 3]
    assert capsys.readouterr().err.count("Broken stopped listening: gone") == 1
    assert broken.closed == []


def test_outside_a_session_nothing_is_said(capsys):
    with track("train", total=2) as bar:
        bar.advance(2)
    progress.log("hello")
    progress.metrics({"a": 1})
    assert capsys.readouterr() == ("", "")


def test_two_sessions_at_once_are_a_mistake():
    with session("t", reporters=[]), pytest.raises(RuntimeError, match="already open"), session("u", reporters=[]):
        pass
    with session("after", reporters=[]):
        pass


def test_without_a_terminal_it_is_a_plain_line_now_and_then(clock):
    stream = io.StringIO()
    with session("t", reporters=[ConsoleReporter(stream, interval=5)]), track("train", total=100) as bar:
        for i in range(100):
            clock.now += 0.5
            bar.advance(loss=1 / (i + 1))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "t: started"
    assert lines[1] == "train: 10/100 steps, 10 %, 45 s left, loss 0.1"
    assert len(lines) == 2 + 10 + 1
    assert lines[-2] == "train: 100/100 steps, in 50 s, loss 0.01"
    assert lines[-1] == "t: done in 50 s"
    assert "\x1b" not in stream.getvalue()


def test_on_a_terminal_it_is_a_bar_with_time_left():
    script = textwrap.dedent("""
        import time
        from world4rl import progress
        with progress.session("toy"):
            with progress.track("train", total=40) as bar:
                for _ in range(40):
                    time.sleep(0.03)
                    bar.advance(loss=0.25)
            progress.log("a [bracketed] note")
    """)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen([sys.executable, "-c", script], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    output = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # the other side closed
            break
        if not chunk:
            break
        output += chunk
    os.close(ours)
    assert process.wait(timeout=30) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.decode())
    assert "━" in text
    assert re.search(r"\d+/40 0:00:0\d \d\.\d s left", text), text
    assert "train: 40/40 steps" in text
    assert "a [bracketed] note" in text
    assert "toy: done in" in text
    assert output.rstrip().endswith(b"\x1b[?25h") or b"\x1b[?25h" in output, "the cursor is shown again"


class Point:
    def __init__(self, name, loaded):
        self.name = name
        self._loaded = loaded

    def load(self):
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def register(monkeypatch, *points):
    monkeypatch.setattr(
        progress.importlib.metadata, "entry_points", lambda group: points if "reporters" in group else ()
    )


def test_registered_listeners_join_where_their_environment_is(monkeypatch, capsys):
    listener = Listener()

    class Here:
        @classmethod
        def from_environment(cls):
            return listener

    class Elsewhere:
        @classmethod
        def from_environment(cls):
            return None

    register(monkeypatch, Point("here", Here), Point("elsewhere", Elsewhere), Point("torn", ImportError("no such")))
    with session("t"):
        progress.log("hello")
    assert "hello" in listener.messages
    error = capsys.readouterr().err
    assert "reporter torn cannot be used: no such" in error
    assert "hello" in error


def test_of_several_processes_only_the_first_speaks(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    with session("t"):
        progress.log("hello")
    assert capsys.readouterr() == ("", "")


def test_the_orchestrators_listener_is_registered_and_silent_by_default():
    import importlib.metadata

    points = {p.name: p for p in importlib.metadata.entry_points(group=progress.ENTRY_POINTS)}
    assert points["dagster"].load().from_environment() is None


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        (Update("a", 5, None, "frame", 2.0, None, {}), "a: 5 frames"),
        (Update("a", 1, 2, "step", 2.0, None, {}), "a: 1/2 steps, 50 %"),
        (Update("a", 1, 1, "step", 2.0, 0.0, {}, finished=True), "a: 1/1 step, in 2.0 s"),
        (Update("a", 0, 0, "step", 0.0, None, {}), "a: 0/0 steps"),
        (Update("a", 5, 10, "step", 2.0, 3700.0, {"x": 123456.0}), "a: 5/10 steps, 50 %, 1 h 1 min left, x 1.235e+05"),
    ],
)
def test_a_line_reads_well(update, expected):
    assert line(update) == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (190, "3 min 10 s"), (7500, "2 h 5 min")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_libraries_are_kept_quiet():
    script = textwrap.dedent("""
        import logging, os, warnings
        from world4rl.progress import quiet_libraries
        quiet_libraries()
        logging.getLogger("lerobot.datasets").warning("library chatter")
        logging.getLogger("lerobot.datasets").error("library error")
        warnings.warn_explicit("library chatter", DeprecationWarning, "x.py", 1, module="lerobot.common")
        warnings.warn_explicit("our warning", UserWarning, "x.py", 1, module="world4rl.models")
        print(os.environ["HF_HUB_OFFLINE"])
    """)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout == "1\n"
    assert "library chatter" not in result.stderr
    assert "library error" in result.stderr
    assert "our warning" in result.stderr
