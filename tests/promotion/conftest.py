"""A repository in miniature: policies are small files, and what they can do is what a test says."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from world4rl.config import Params, Promotion, load_profile
from world4rl.files import write_json, write_text
from world4rl.paths import Paths
from world4rl.promotion import challenge, simulated
from world4rl.promotion.history import History, read_history
from world4rl.promotion.verdicts import Outcome
from world4rl.provenance import keys
from world4rl.provenance.decisions import Decision, Decisions, Withdrawal
from world4rl.provenance.digests import digest_folder
from world4rl.provenance.records import subject

TASK = "button-press-v3"


@dataclass
class Site:
    """The repository. `rates` are the success rates of policies by the content of their file."""

    paths: Paths
    private: Path
    params: Params
    rates: dict[str, float] = field(default_factory=dict)
    tried: list[int] = field(default_factory=list)  # seeds, in order
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def clock(self) -> datetime:
        self.now += timedelta(hours=1)
        return self.now

    def write(self, folder: Path, content: str, rate: float) -> str:
        """Makes a policy; returns its digest."""
        write_text(folder / "model.txt", content)
        write_text(folder / "config.json", "{}")
        self.rates[content] = rate
        return digest_folder(folder)

    def refine(self, content: str, rate: float) -> str:
        """Makes the task's refined policy; returns its digest."""
        return self.write(self.paths.refined(TASK), content, rate)

    def rule(self, **values: Any) -> None:
        """Changes the rule."""
        changed = Promotion(**{**self.params.promotion.model_dump(), **values})
        self.params = self.params.model_copy(update={"promotion": changed})

    def bound(self, **values: float) -> None:
        """Changes the bounds of the checks."""
        self.params = self.params.model_copy(update={"gates": self.params.gates.model_copy(update=values)})

    def challenge(self) -> Outcome:
        return challenge.challenge(self.params, self.paths, TASK, self.private, clock=self.clock)

    def promote(self, content: str, rate: float) -> str:
        """Has a policy become champion; returns its digest."""
        digest = self.refine(content, rate)
        assert self.challenge().verdict == "promoted"
        return digest

    def withdraw(self, *policies: str) -> None:
        said = Withdrawal(
            at="2026-06-01T00:00:00Z",
            by="ada",
            because="she asked for it",
            episodes=("e" * 64,),
            datasets=(),
            affected=tuple(subject("models", policy) for policy in policies),
            deployments=(),
        )
        Decisions(self.paths).add((), said, self.private)

    @property
    def history(self) -> History:
        return read_history(self.paths)

    @property
    def decisions(self) -> list[Decision]:
        return [record.predicate for record in self.history.records]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Checks pass; the cloned policy succeeds in half of the trials; there is no champion."""
    monkeypatch.setenv("WORLD4RL_SIGNING_KEY", str(tmp_path / "key.pem"))
    paths = Paths(tmp_path / "repository")
    site = Site(paths, keys.ensure_key(paths), load_profile("demo"))
    write_json(paths.classifier_metrics, {"precision": 0.95, "generated": {"precision": 0.9}})
    write_json(paths.fidelity_metrics, {"open_loop_mse": {"5": 0.1}, "copy_last_mse": {"5": 0.2}})
    site.write(paths.bc(TASK), "clone", 0.5)

    def try_in_turn(
        task: str, simulation: Any, seeds: Sequence[int], policies: Mapping[str, str]
    ) -> Generator[dict[str, Any], None, None]:
        assert list(policies) == ["opponent", "challenger"]
        for seed in seeds:
            site.tried.append(seed)
            luck = np.random.default_rng(seed).random()  # the same for both: the seed decides how hard it is
            yield {name: SimpleNamespace(success=luck < site.rates[policy]) for name, policy in policies.items()}

    class Policy(str):
        def eval(self) -> Policy:
            return self

    monkeypatch.setattr(simulated, "try_in_turn", try_in_turn)
    monkeypatch.setattr(simulated, "load_policy", lambda folder, device: Policy((folder / "model.txt").read_text()))
    return site


@pytest.fixture
def spoil() -> Callable[[Path], None]:
    """Changes a byte of a file, in a file of its own: a hard link's other names keep what they had."""

    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[0] ^= 1
        path.unlink()
        path.write_bytes(content)

    return change
