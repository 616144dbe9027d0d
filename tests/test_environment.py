"""The pinned packages fit together where they are known to break each other quietly."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from world4rl.envs.tasks import METAWORLD_TASKS

ROOT = Path(__file__).parents[1]


def test_a_string_asset_selection_works_beside_dvc():
    """dvc once pulled in antlr 4.9, with which Dagster 1.13 parses no selection that uses its grammar (`and`)."""
    import dvc.repo  # noqa: F401  both in one process, as `make demo` has them
    from dagster import AssetKey, AssetSelection, asset

    @asset(group_name="g")
    def upstream() -> None: ...

    @asset(group_name="g", deps=[upstream])
    def downstream() -> None: ...

    for text in ("+key:downstream and group:g", "key:upstream+ and not key:other", 'group:g or kind:"x"'):
        selected = AssetSelection.from_string(text).resolve([upstream, downstream])
        assert selected == {AssetKey("upstream"), AssetKey("downstream")}, text


def test_our_list_of_tasks_is_metaworlds():
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert sorted(ALL_V3_ENVIRONMENTS) == list(METAWORLD_TASKS)


def pins() -> dict[str, str]:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==([^ \n]+)", lock, flags=re.MULTILINE))


def test_every_direct_dependency_is_pinned_once():
    lines = [line for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines() if line]
    assert all(re.match(r"^[a-z0-9-]+==[^ ]+( ; .+)?$", line) for line in lines)
    assert len(lines) == len(pins())
    wanted = (ROOT / "requirements.in").read_text(encoding="utf-8")
    direct = re.findall(r"^([A-Za-z0-9.-]+)", wanted, flags=re.MULTILINE)
    assert direct
    assert {name.lower().replace(".", "-") for name in direct} <= set(pins())


def test_what_is_installed_is_what_is_pinned():
    locked = pins()
    wrong = {}
    for distribution in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.name).lower()
        if name in ("world4rl", "lerobot-policy-world4rl"):
            continue
        if locked.get(name) != distribution.version:
            wrong[name] = f"{distribution.version} installed, {locked.get(name)} pinned"
    assert not wrong


def test_what_the_project_declares_is_pinned_to_what_it_accepts():
    from packaging.requirements import Requirement

    locked = pins()
    for text in importlib.metadata.requires("world4rl") or []:
        requirement = Requirement(text)
        assert requirement.specifier.contains(locked[requirement.name], prereleases=True), text


@pytest.mark.parametrize("first", ["torch", "mujoco"])
def test_simulator_and_torch_load_in_either_order(first):
    second = {"torch": "mujoco", "mujoco": "torch"}[first]
    script = f"import {first}, {second}; import numpy; print(numpy.ones(2).sum(), torch.ones(2).sum().item())"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert result.stdout.split() == ["2.0", "2.0"], result.stderr
