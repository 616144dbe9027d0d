"""Passes a stage's progress on to Dagster, through the Pipes session that the environment describes.

Registered under the entry-point group `world4rl.reporters`: the method itself knows no Dagster.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from world4rl.progress import Update, figure, line


class PipesReporter:
    """At most one entry a second in Dagster's log: what comes faster is joined, and surpassed progress is dropped.

    Only a stage's last entry does not wait for its turn: nobody should wait for it either.

    Args:
        send: Takes an entry for the log.
        finish: Ends the connection.
        clock: Seconds, for tests.
    """

    interval = 1.0

    def __init__(
        self,
        send: Callable[[str], None],
        finish: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._finish = finish
        self._clock = clock
        self._waiting: list[str] = []
        self._progress: dict[str, str] = {}
        self._sent = float("-inf")

    @classmethod
    def from_environment(cls) -> Self | None:
        """Opens the session that the environment describes; None where there is none."""
        if "DAGSTER_PIPES_CONTEXT" not in os.environ:
            return None
        from dagster_pipes import open_dagster_pipes

        pipes = open_dagster_pipes()
        return cls(pipes.log.info, pipes.close)

    def updated(self, update: Update) -> None:
        """Keeps the newest line of each piece of work; the last one is always sent."""
        self._progress.pop(update.label, None)
        if update.finished:
            self._waiting.append(line(update))
        else:
            self._progress[update.label] = line(update)
        self._flush()

    def logged(self, message: str) -> None:
        """Sends the message."""
        self._waiting.append(message)
        self._flush()

    def measured(self, values: Mapping[str, Any]) -> None:
        """Sends the figures on one line."""
        self.logged(", ".join(f"{name} {figure(value)}" for name, value in values.items()))

    def close(self, error: BaseException | None) -> None:
        """Sends what waits, says why the stage failed if it did, and closes the session."""
        if error is not None:
            self._waiting.append(f"{type(error).__name__}: {error}")
        self._progress.clear()
        if self._waiting:
            self._flush(force=True)
        self._finish()

    def _flush(self, *, force: bool = False) -> None:
        now = self._clock()
        entries = self._waiting + list(self._progress.values())
        if not entries or (now - self._sent < self.interval and not force):
            return
        self._send("\n".join(entries))
        self._sent = now
        self._waiting.clear()
        self._progress.clear()
