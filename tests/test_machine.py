"""What the machine must offer is really tried, and what it lacks is named with its remedy."""

import os
import sys

import pytest
import torch

from world4rl import machine
from world4rl.errors import MachineError


def test_the_backend_that_is_chosen_draws(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert machine.rendering_backend() in machine.BACKENDS


def test_a_backend_that_does_not_exist_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "bogus")
    with pytest.raises(MachineError, match="bogus") as caught:
        machine.rendering_backend()
    assert caught.value.where == "MUJOCO_GL=bogus"
    assert "unset MUJOCO_GL" in str(caught.value.remedy)


def test_where_nothing_draws_the_packages_to_install_are_named(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(machine, "BACKENDS", ("absent-one", "absent-two"))
    with pytest.raises(MachineError) as caught:
        machine.rendering_backend()
    for text in ("absent-one", "absent-two"):
        assert text in caught.value.problem
    for package in ("libegl1", "libosmesa6"):
        assert package in str(caught.value.remedy)


@pytest.mark.parametrize(("working", "expected"), [("egl", "egl"), ("osmesa", "osmesa")])
def test_the_first_that_draws_is_taken(monkeypatch, working, expected):
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setenv("PYOPENGL_PLATFORM", "left over from elsewhere")
    monkeypatch.setattr(machine, "_try_backend", lambda backend: None if backend == working else "broken")
    assert machine.use_rendering_backend() == expected
    assert os.environ["MUJOCO_GL"] == os.environ["PYOPENGL_PLATFORM"] == expected


def test_a_driver_that_ends_the_process_or_hangs_is_survived(monkeypatch, tmp_path):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -SEGV $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert "-11" in str(machine._try_backend("egl"))
    program.write_text("#!/bin/sh\nexec sleep 30\n")
    monkeypatch.setattr(machine, "PROBE_SECONDS", 0.2)
    assert "no frame within" in str(machine._try_backend("egl"))


def test_disk_space_is_checked_where_the_work_will_be(tmp_path):
    machine.check_disk(tmp_path / "not" / "yet", 1e-6)
    with pytest.raises(MachineError, match="GB free, 1e") as caught:
        machine.check_disk(tmp_path / "not" / "yet", 1e9)
    assert caught.value.where == str(tmp_path)


def test_a_device_is_chosen_or_refused(monkeypatch):
    assert machine.select_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine.select_device("auto") == torch.device("cpu")
    with pytest.raises(MachineError, match="no GPU") as caught:
        machine.select_device("cuda")
    assert "device: auto" in str(caught.value.remedy)


def test_threads_are_limited_only_when_asked(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    machine.use_threads(0)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    machine.use_threads(3)
    assert os.environ["OMP_NUM_THREADS"] == os.environ["OPENBLAS_NUM_THREADS"] == "3"


def test_the_machine_is_described():
    description = machine.describe()
    assert description["cores"] == os.cpu_count()
    assert float(description["memory_gb"]) > 0
    assert description["processor"]
