"""Files are whole or absent: whatever goes wrong while they are written."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time

import pytest

from world4rl import files
from world4rl.errors import MachineError
from world4rl.files import disk_full, read_json, replacing, write_json, write_text


def names(folder) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_block_that_fails_leaves_the_old_content_and_nothing_else(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a") as fresh:
        fresh.write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_folder_takes_another_ones_place_as_a_whole(tmp_path):
    for content in ("one", "two"):
        with replacing(tmp_path / "deep" / "folder") as fresh:
            fresh.mkdir()
            (fresh / content).write_text(content)
    assert names(tmp_path / "deep" / "folder") == ["two"]
    assert names(tmp_path / "deep") == ["folder"]


def test_a_text_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    synced = {}
    monkeypatch.setattr(files.os, "fsync", lambda number: synced.update({os.fstat(number).st_ino: os.fstat(number)}))
    write_text(tmp_path / "a", "whole")
    assert synced[(tmp_path / "a").stat().st_ino].st_size == len("whole")


def test_json_of_equal_values_is_equal_and_nan_is_refused(tmp_path):
    write_json(tmp_path / "a", {"x": 1, "y": [2.5, None]})
    write_json(tmp_path / "b", {"y": [2.5, None], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_json(tmp_path / "a") == {"x": 1, "y": [2.5, None]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a", {"x": float("nan")})
    assert read_json(tmp_path / "a")["x"] == 1


def test_what_a_killed_writer_left_goes_with_the_next_write_but_a_living_writers_stays(tmp_path, monkeypatch):
    write = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from world4rl.files import replacing
        with replacing(Path(sys.argv[1])) as fresh:
            fresh.write_text("half")
            print("writing", flush=True)
            time.sleep(100)
    """)
    writers = [
        subprocess.Popen([sys.executable, "-c", write, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "writing\n"
        writers[0].send_signal(signal.SIGKILL)
        writers[0].wait()
        write_text(tmp_path / "a", "new")
        assert len(names(tmp_path)) == 3, "a young folder's owner may be about to lock it"
        now = time.time() + 2 * files.ABANDONED_SECONDS
        monkeypatch.setattr(files.time, "time", lambda: now)
        write_text(tmp_path / "a", "newer")
        assert len(names(tmp_path)) == 2, "the dead writer's folder goes, the living one's stays"
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    write_text(tmp_path / "a", "newest")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "newest"


def test_a_full_disk_is_recognised_however_a_library_says_it():
    assert disk_full(OSError(28, "No space left on device"))
    assert disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert disk_full(sqlite3.OperationalError("database or disk is full"))
    wrapped = RuntimeError("writing the image failed")
    wrapped.__cause__ = OSError(28, "No space left on device")
    assert disk_full(wrapped)
    assert not disk_full(OSError(2, "No such file or directory"))
    assert not disk_full(None)


def test_an_error_while_writing_to_a_full_disk_names_the_file_and_the_remedy(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(MachineError) as caught, replacing(tmp_path / "a") as fresh:
        fresh.write_text("half")
        raise OSError(28, "No space left on device")
    assert caught.value.where == str(tmp_path / "a")
    assert "free space" in str(caught.value.remedy)
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def own_mounts_allowed() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "-rm", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not own_mounts_allowed(), reason="needs a mount namespace of one's own")
def test_a_disk_that_is_really_full_keeps_the_old_files(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        import torch
        from world4rl.errors import MachineError
        from world4rl.files import write_text
        from world4rl.training.checkpoint import load_state, save_state
        disk = Path(sys.argv[1])
        write_text(disk / "a", "old")
        save_state(disk / "state", 1, {})
        for write in (
            lambda: write_text(disk / "a", "x" * 2_000_000),
            lambda: save_state(disk / "state", 2, {"model": {"w": torch.zeros(1_000_000)}}),
        ):
            try:
                write()
            except MachineError as error:
                print("MachineError:", error.problem)
        assert (disk / "a").read_text() == "old"
        assert load_state(disk / "state").step == 1
        assert sorted(p.name for p in disk.rglob("*")) == ["a", "state", "state.safetensors"]
    """)
    command = f"mount -t tmpfs -o size=1m none {disk} && exec {sys.executable} -c '{script}' {disk}"
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, timeout=120, env=os.environ
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("MachineError: the disk is full; nothing was half-written") == 2
