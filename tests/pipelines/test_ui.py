"""What `make ui` refuses before it starts anything."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest
from dagster._cli import dev

from pipelines import ui


def test_a_port_that_somebody_listens_on_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
    monkeypatch.setattr(ui, "serve", lambda _: pytest.fail("it started all the same"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["ui", "--root", str(tmp_path), "--port", str(port)])
        assert ui.main() == 1
    said = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in said
    assert "--port" in said


def test_a_free_port_is_handed_to_dagster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
    monkeypatch.chdir(tmp_path)
    started: list[list[str]] = []
    interrupts: list[object] = []

    def start(command: list[str], **_: object) -> None:
        started.append(command)
        interrupts.append(signal.getsignal(signal.SIGINT))

    monkeypatch.setattr(dev.dev_command, "main", start)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(sys, "argv", ["ui", "--root", str(tmp_path), "--port", str(port)])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell
    try:
        ui.main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert interrupts == [signal.SIG_DFL], "a polite kill ends it"
    ((*_, address, option, number),) = started
    assert (address, option, number) == ("127.0.0.1", "-p", str(port))


def test_our_web_server_takes_the_place_of_dagsters(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(dev, "open_ipc_subprocess", lambda parts, **_: started.append(parts))
    monkeypatch.setattr(
        dev.dev_command,
        "main",
        lambda *_, **__: dev.open_ipc_subprocess([sys.executable, "-m", "dagster_webserver", "--port", "1"]),
    )
    ui.serve(1)
    assert started == [[sys.executable, "-m", "pipelines.webserver", "--port", "1"]]
