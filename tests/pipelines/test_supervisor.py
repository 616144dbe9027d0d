import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from assets.stage_runner import SUPERVISOR

# A command with a child of its own, both deaf to interrupts.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
time.sleep(60)
"""


def start(*command):
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(SUPERVISOR), str(reading), *command], pass_fds=[reading]
    )
    os.close(reading)
    return process, writing


def family(file: Path):
    end = time.monotonic() + 20
    while not (file.exists() and len(file.read_text().split()) == 2):
        assert time.monotonic() < end
        time.sleep(0.05)
    return [psutil.Process(int(pid)) for pid in file.read_text().split()]


def gone(process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_status_of_the_command_comes_through():
    process, writing = start(sys.executable, "-c", "raise SystemExit(7)")
    assert process.wait(timeout=20) == 7
    os.close(writing)


def test_what_does_not_hear_an_interrupt_is_killed_with_its_children_and_reaped(tmp_path):
    process, writing = start(sys.executable, "-c", STUBBORN, str(tmp_path / "pids"))
    parent, child = family(tmp_path / "pids")
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 128 + signal.SIGKILL
    assert not psutil.pid_exists(parent.pid)  # not even a zombie: DVC would wait for that one
    end = time.monotonic() + 5
    while not gone(child):
        assert time.monotonic() < end
        time.sleep(0.05)
    os.close(writing)


def test_the_group_ends_when_nobody_waits_for_it(tmp_path):
    code = "import os, sys, time; open(sys.argv[1], 'w').write(f'{os.getpid()} {os.getppid()}'); time.sleep(60)"
    process, writing = start(sys.executable, "-c", code, str(tmp_path / "pids"))
    family(tmp_path / "pids")
    os.close(writing)
    assert process.wait(timeout=20) != 0
