"""What a stage tells the person who waits: progress with time left, messages, figures, a summary at the end.

A stage calls `track`, `log` and `metrics`; it never knows who listens. A `session` finds the listeners: the console,
and whatever registers itself under the entry-point group `world4rl.reporters` and recognises its environment (an
orchestrator's pipe, say). Outside a session, and on every rank but the first, nothing is reported.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

ENTRY_POINTS = "world4rl.reporters"


@dataclass(frozen=True)
class Update:
    """How far one piece of work is.

    Attributes:
        label: What is being done.
        done: Units completed.
        total: Units in all; None when unknown.
        unit: What is counted, singular.
        seconds: Since it began.
        seconds_left: Estimated; None when unknown.
        values: The latest figures, e.g. `{"loss": 0.1}`.
        finished: Whether this is the last update.
    """

    label: str
    done: int
    total: int | None
    unit: str
    seconds: float
    seconds_left: float | None
    values: Mapping[str, float]
    finished: bool = False


class Reporter(Protocol):
    """A listener. Its methods are called from one thread.

    A class registered as an entry point also has `from_environment() -> Reporter | None`, a class method that returns
    None where it has nothing to do; it is called at the start of every session, so importing it must be cheap.

    Attributes:
        interval: Least seconds between two `updated` calls for the same piece of work; its last one always comes.
    """

    interval: float

    def updated(self, update: Update) -> None:
        """A piece of work went on, or finished."""

    def logged(self, message: str) -> None:
        """The stage has something to say."""

    def measured(self, values: Mapping[str, Any]) -> None:
        """The stage has figures: numbers or short strings by name."""

    def close(self, error: BaseException | None) -> None:
        """The session ended, with the error that ended it if there was one. Called once, always."""


class Bar:
    """One piece of work in progress; made by `track`."""

    def __init__(
        self, label: str, total: int | None, unit: str, start: int = 0, work: Callable[[int], float] = float
    ) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.done = start
        self._start = start
        self._work = work
        self._began = time.monotonic()
        self._values: dict[str, float] = {}
        self._told: dict[int, float] = {}
        self._tell(finished=False)

    def advance(self, units: int = 1, **values: float) -> None:
        """Counts `units` more as done and keeps the given figures for display."""
        self.done += units
        self._values.update(values)
        self._tell(finished=False)

    def finish(self) -> None:
        """Tells every listener where the work ended; `track` calls it."""
        self._tell(finished=True)

    def _tell(self, *, finished: bool) -> None:
        now = time.monotonic()
        due = [r for r in _reporters if finished or now - self._told.get(id(r), -1e9) >= r.interval]
        if not due:
            return
        seconds = now - self._began
        update = Update(
            self.label,
            self.done,
            self.total,
            self.unit,
            seconds,
            self._seconds_left(seconds),
            dict(self._values),
            finished=finished,
        )
        for reporter in due:
            self._told[id(reporter)] = now
            _call(reporter, "updated", update)

    def _seconds_left(self, seconds: float) -> float | None:
        # What a resumed trainer did before says nothing about today's pace.
        fresh = self._work(self.done) - self._work(self._start)
        if self.total is None or fresh <= 0:
            return None
        return seconds / fresh * (self._work(self.total) - self._work(self.done))


_reporters: list[Reporter] = []
_open = False


@contextmanager
def track(
    label: str,
    total: int | None = None,
    *,
    unit: str = "step",
    start: int = 0,
    work: Callable[[int], float] = float,
) -> Iterator[Bar]:
    """Reports a piece of work.

    Args:
        label: What is being done, for people.
        total: Units in all, when known.
        unit: What is counted, singular.
        start: Units that were done before, by a run that this one continues.
        work: How much work the first so many units are, in any measure, where some take longer than others: the time
            left is estimated from it.

    Example:
        ```python
        with track("train world model", total=steps) as bar:
            for step in range(steps):
                bar.advance(1, loss=loss)
        ```
    """
    bar = Bar(label, total, unit, start, work)
    try:
        yield bar
    finally:
        bar.finish()


def log(message: str) -> None:
    """Tells the listeners a sentence."""
    for reporter in list(_reporters):
        _call(reporter, "logged", message)


def metrics(values: Mapping[str, Any]) -> None:
    """Tells the listeners the figures that matter: numbers or short strings by name."""
    for reporter in list(_reporters):
        _call(reporter, "measured", values)


@contextmanager
def session(title: str, *, reporters: Iterable[Reporter] | None = None) -> Iterator[None]:
    """Reports a whole stage: finds the listeners, says when it began and how it ended, and closes them.

    Args:
        title: The stage and its task.
        reporters: The listeners, instead of the console and the registered ones.
    """
    global _open
    if _open:
        raise RuntimeError("a session is already open")
    _open = True
    quiet_libraries()
    began = time.monotonic()
    ended_by: BaseException | None = None
    try:
        _reporters.extend(_find() if reporters is None else reporters)
        log(f"{title}: started")
        yield
        log(f"{title}: done in {duration(time.monotonic() - began)}")
    except BaseException as error:
        ended_by = error
        log(f"{title}: {_how_it_ended(error)} after {duration(time.monotonic() - began)}")
        raise
    finally:
        for reporter in list(_reporters):
            _call(reporter, "close", ended_by)
        _reporters.clear()
        _open = False


def _how_it_ended(error: BaseException) -> str:
    return "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "failed"


def _find() -> list[Reporter]:
    if int(os.environ.get("RANK", "0")) > 0:  # torchrun: only the first of several processes speaks
        return []
    found: list[Reporter] = [ConsoleReporter()]
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            reporter = entry.load().from_environment()
        except Exception as error:  # the work must not fail because a listener does
            print(f"world4rl: reporter {entry.name} cannot be used: {error}", file=sys.stderr)
            continue
        if reporter is not None:
            found.append(reporter)
    return found


def _call(reporter: Reporter, method: str, argument: Any) -> None:
    try:
        getattr(reporter, method)(argument)
    except Exception as error:  # hours of training must not end because a pipe broke
        if reporter in _reporters:
            _reporters.remove(reporter)
        print(f"world4rl: {type(reporter).__name__} stopped listening: {error}", file=sys.stderr)


class ConsoleReporter:
    """Progress on a terminal as bars with time left, elsewhere as a plain line every few seconds.

    Args:
        stream: Where to write; standard error when None.
        interval: Seconds between plain lines for a piece of work; a terminal is updated more often.
    """

    def __init__(self, stream: TextIO | None = None, interval: float = 5.0) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._display: _Display | None = _Display(self._stream) if self._stream.isatty() else None
        self.interval = interval if self._display is None else 0.1

    def updated(self, update: Update) -> None:
        """Moves the bar, or prints a line."""
        if self._display is not None:
            self._display.update(update)
        elif update.finished or update.done:
            self._print(line(update))

    def logged(self, message: str) -> None:
        """Prints the message."""
        self._print(message)

    def measured(self, values: Mapping[str, Any]) -> None:
        """Prints the figures on one line."""
        self._print("  " + ", ".join(f"{name} {figure(value)}" for name, value in values.items()))

    def close(self, error: BaseException | None) -> None:
        """Gives the terminal back."""
        if self._display is not None:
            self._display.stop()

    def _print(self, text: str) -> None:
        if self._display is not None:
            self._display.print(text)
        else:
            print(text, file=self._stream, flush=True)


class _Display:
    """The live bars of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.fields[of]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[values]}", style="dim"),
            console=Console(file=stream, highlight=False),
        )
        self._tasks: dict[str, Any] = {}
        self._progress.start()

    def update(self, update: Update) -> None:
        values = "  ".join(f"{name} {figure(value)}" for name, value in update.values.items())
        of = "?" if update.total is None else str(update.total)
        left = "" if update.seconds_left is None else f"{duration(update.seconds_left)} left"
        if update.label not in self._tasks:
            self._tasks[update.label] = self._progress.add_task(
                update.label, total=update.total, completed=update.done, of=of, left=left, values=values
            )
        self._progress.update(self._tasks[update.label], completed=update.done, left=left, values=values)
        if update.finished:  # leave a line behind, free the live area for what comes next
            self._progress.remove_task(self._tasks.pop(update.label))
            self.print(line(update))

    def print(self, text: str) -> None:
        self._progress.console.print(text, markup=False)

    def stop(self) -> None:
        self._progress.stop()


def line(update: Update) -> str:
    """An update as one plain line, e.g. `train world model: 400/2000 steps, 20 %, 3 min 10 s left, loss 0.12`."""
    count = f"{update.done}" if update.total is None else f"{update.done}/{update.total}"
    plural = "" if (update.done if update.total is None else update.total) == 1 else "s"
    parts = [f"{update.label}: {count} {update.unit}{plural}"]
    if update.finished:
        parts.append(f"in {duration(update.seconds)}")
    elif update.total:
        parts.append(f"{100 * update.done / update.total:.0f} %")
        if update.seconds_left is not None:
            parts.append(f"{duration(update.seconds_left)} left")
    return ", ".join(parts + [f"{name} {figure(value)}" for name, value in update.values.items()])


def figure(value: Any) -> str:
    """A number to four significant digits; anything else as it prints."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Seconds as people say them, e.g. `42 s`, `3 min 10 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def quiet_libraries() -> None:
    """Keeps what libraries print for their own developers out of a stage's output; errors still come through."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here lives on the hub: a missing file is an error at once
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder: errors only
    for name in ("lerobot", "datasets", "huggingface_hub", "httpx", "PIL", "matplotlib", "absl", "libav", "numcodecs"):
        logging.getLogger(name).setLevel(logging.ERROR)
    noisy = r"(lerobot|datasets|huggingface_hub|gymnasium|torchvision|metaworld|mujoco|diffusers|zarr|pandera|glfw)\b"
    for category in (UserWarning, DeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=noisy)
