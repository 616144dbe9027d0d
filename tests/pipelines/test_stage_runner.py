"""What a stage prints is read to its end."""

from __future__ import annotations

import io
from collections import deque
from pathlib import Path

from assets.stage_runner import Command, Echo, StageRunner, Work


class Gone(Echo):
    """Listens to the first line only."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def printed(self, stage: Work, text: str) -> None:
        if self.heard:
            raise BrokenPipeError
        self.heard.append(text)


def test_also_where_the_disk_is_full_and_nobody_listens() -> None:
    listener, tail = Gone(), deque[str]()
    output = io.StringIO("one\ntwo\nthree\n")
    StageRunner(listener=listener)._copy(Command("stage", None, ()), output, Path("/dev/full"), tail)
    assert list(tail) == ["one\n", "two\n", "three\n"]
    assert listener.heard == ["one\n"]


def test_its_log_holds_the_last_run_alone(tmp_path: Path) -> None:
    log = tmp_path / "stage.log"
    log.write_text("of the run before\n")
    StageRunner()._copy(Command("stage", None, ()), io.StringIO("one\ntwo\n"), log, deque())
    assert log.read_text() == "one\ntwo\n"
