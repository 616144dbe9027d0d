"""A withdrawal that is killed: the same command finishes it, wherever it was, and no decision stands there twice."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from assets.purge import Storages
from assets.withdrawing import Request, Withdrawals
from tests.withdrawal.conftest import ADA, Lab, pictures_of
from world4rl.provenance.decisions import Decisions, Withdrawal
from world4rl.withdrawal import workspace

pytestmark = pytest.mark.live


class Killed(BaseException):
    """Ends the process as SIGKILL does, as far as the code can see: nothing handles it."""


def killed(after: int, original: Callable[..., Any]) -> Callable[..., Any]:
    """A function that works so many times and then kills the process before it has done anything."""
    calls = 0

    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Killed
        return original(*arguments, **named)

    return call


STEPS: dict[str, tuple[Any, str, int]] = {
    "before the decision": (Decisions, "add", 0),
    "after the decision": (workspace, "apply", 0),
    "before the first old record goes": (workspace, "remove_acceptance", 0),
    "between two old records": (workspace, "remove_acceptance", 1),
    "between two folders": (workspace.shutil, "rmtree", 2),
    "before DVC knows": (Storages, "run", 0),
    "before the remote": (Storages, "remove", 0),
    "before the cache": (Storages, "remove", 1),
}


def state(lab: Lab) -> tuple[Any, ...]:
    """All that counts in the end, but when it was decided."""
    files = {
        name: digest
        for name, digest in lab.snapshot().items()
        if not name.startswith(("root/data/decisions", "root/.landing")) and "/.dvc/cache/runs/" not in name
    }
    records = [one.predicate for one in Decisions(lab.paths).read()]
    assert all(isinstance(one, Withdrawal) for one in records)
    return files, [(one.episodes, one.datasets, one.affected) for one in records if isinstance(one, Withdrawal)]


@pytest.fixture(scope="module")
def finished() -> dict[str, Any]:
    """What a withdrawal comes to that nothing interrupts; the first test that needs it fills it in."""
    return {}


@pytest.mark.parametrize("step", STEPS)
def test_the_same_command_finishes(
    lab: Lab, step: str, finished: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(operator=ADA, also_landing=True)
    owner, name, after = STEPS[step]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed(after, getattr(owner, name)))
        withdrawals = Withdrawals(lab.root)
        with pytest.raises(Killed):
            withdrawals.carry_out(request, withdrawals.plan(request), by="registrar", because="b")
        withdrawals.close()
    lab.withdraw(request)
    assert lab.plan(Request()).empty
    files, decisions = state(lab)
    assert len(decisions) == 1
    assert not any(pictures_of(seed) & lab.pictures() for seed in (2, 3, 4))
    assert len(lab.accepted()) == 1
    assert finished.setdefault("files", files) == files
    assert finished.setdefault("decisions", decisions) == decisions


def test_a_sigkill_right_after_the_decision_leaves_no_lock_behind(lab: Lab) -> None:
    script = (
        "import sys, typer; from assets.commands import add; app = typer.Typer(); app.callback()(lambda: None); "
        "add(app); app(['withdraw', *sys.argv[1:]])"
    )
    words = ["--root", str(lab.root), "--operator", ADA, "--yes", "--by", "registrar", "--because", "b"]
    process = subprocess.Popen([sys.executable, "-c", script, *words], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not list(lab.paths.decisions.glob("*.json")):
        assert process.poll() is None, "it ended without a decision"
        assert time.monotonic() < end, "it never decided"
        time.sleep(0.002)
    process.kill()
    process.wait()
    lab.withdraw(Request(operator=ADA, also_landing=True))
    assert len(Decisions(lab.paths).read()) == 1
    assert not any(pictures_of(seed) & lab.pictures() for seed in (2, 3, 4))
    assert lab.plan(Request()).empty
