"""What a person at the terminal sees while the lineage runs."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from assets.dvc_project import DvcProject
from pipelines.lane import News
from world4rl.progress import duration


class Display:
    """A line when a stage begins and one when it ends; between them its newest line of progress.

    On a terminal each running stage has one line, which changes. Elsewhere its progress is printed now and then.

    Args:
        stream: Where to write; standard output when None.
        interval: Least seconds between two lines of progress of a stage, where there is no terminal.
    """

    def __init__(self, stream: TextIO | None = None, interval: float = 15.0) -> None:
        stream = sys.stdout if stream is None else stream
        self._interval = interval
        self._began = time.monotonic()
        self._running: dict[str, str] = {}
        self._printed: dict[str, float] = {}
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, transient=True) if stream.isatty() else None
        self.ran = 0  # stages that were not up to date

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, news: News) -> None:
        """Shows what happened to a stage."""
        text = news.text.strip()
        if news.kind == "began":
            self.ran += 1
            self._running[news.stage] = "started"
            self._printed[news.stage] = time.monotonic()
            self.say(f"{news.stage}: started")
        elif news.kind == "printed" and not DvcProject.is_chatter(text):
            self._running[news.stage] = text
            if self._live is not None:
                self._refresh()
            elif time.monotonic() - self._printed[news.stage] >= self._interval:
                self._printed[news.stage] = time.monotonic()
                self.say(f"{news.stage}: {text}")
        elif news.kind in ("ended", "unchanged"):
            self._running.pop(news.stage, None)
            how = f"done in {duration(news.seconds)}" if news.kind == "ended" else "up to date"
            self.say(f"{news.stage}: {how}")

    def say(self, text: str) -> None:
        """Prints a line, with the time since the start before it."""
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        self._console.print(f"[{minutes:3d}:{seconds:02d}] {text}", markup=False)
        self._refresh()

    def _refresh(self) -> None:
        if self._live is None:
            return
        rows = Table.grid(padding=(0, 2))
        for name, text in self._running.items():
            rows.add_row(name, text)
        self._live.update(rows)
