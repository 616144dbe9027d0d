"""Accepted datasets, as the job that takes them leaves them, without any data."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from world4rl.config import load_params
from world4rl.landing.inbox import Arrival
from world4rl.landing.ledger import Ledger
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_bytes
from world4rl.provenance.manifests import Acceptance, LandedEpisode, write_acceptance, write_manifests
from world4rl.provenance.statement import Statement

_numbers = itertools.count(1)


def accept(root: Path, task: str, episodes: int, *, role: Any = "expert", at: float) -> str:
    """Accepts a dataset at a time, in seconds since 1970; returns its id."""
    paths, name = Paths(root), f"recordings-{next(_numbers)}"
    digest = digest_bytes(name.encode())
    members = tuple(
        LandedEpisode(episode=n, task=task, length=10, success=True, digest=digest_bytes(f"{name}/{n}".encode()))
        for n in range(episodes)
    )
    statement = Statement(source=role)
    acceptance = Acceptance(id=digest[:16], name=name, digest=digest, statement=statement, episodes=members)
    ledger = Ledger(paths.ledger)
    ledger.observe([Arrival(name, "marker", False, digest)], [], now=at, quiet_seconds=0)
    entry = ledger.claim(name, "a run", at)
    assert entry is not None
    write_acceptance(acceptance, paths)
    write_manifests(load_params(paths.params).tasks, paths)
    ledger.settle(entry, "accepted", at, digest=digest, detail={"why": "good"})
    ledger.close()
    return acceptance.id
