"""What was accepted since the last training: how many episodes of a task wait, how long, and whether that is enough.

Nothing is counted up anywhere. What waits is the difference between a task's manifest and what the stage `landed` took
up last, so that a restart, a missed look or a failed run can neither lose an episode nor count it twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from world4rl.config import Retraining
from world4rl.landing.ledger import Ledger
from world4rl.paths import ROLES, Paths, Role
from world4rl.progress import duration
from world4rl.provenance.manifests import Manifest, ManifestDataset, RoleManifest

TRAINING_ROLES: tuple[Role, ...] = ("expert", "policy", "random")
HOUR = 3600.0  # seconds


@dataclass(frozen=True)
class Gathered:
    """The episodes of a task that the stage `landed` has not taken up.

    Attributes:
        task: The task.
        version: Of its manifest.
        added: How many there are in each role; roles with none are left out.
        removed: How many it took up that are withdrawn now.
        datasets: Ids of the datasets that the added ones came in.
        oldest: When the oldest of those to train on was accepted, in seconds since 1970; None where there is none.
        judged: Whether there are policies of the task that trials can judge: it was evaluated before.
    """

    task: str
    version: str
    added: Mapping[Role, int]
    removed: int
    datasets: tuple[str, ...]
    oldest: float | None
    judged: bool

    @property
    def episodes(self) -> int:
        """Those to train on."""
        return sum(self.added.get(role, 0) for role in TRAINING_ROLES)

    def __str__(self) -> str:
        parts = [f"+{_count(count)} ({role})" for role, count in self.added.items()]
        parts += [f"-{_count(self.removed)}"] if self.removed else []
        return ", ".join(parts) or "the same episodes"


@dataclass(frozen=True)
class Due:
    """Whether enough has gathered, and why or why not, for people."""

    now: bool
    why: str


def gather(
    manifest: Manifest,
    taken: Mapping[Role, RoleManifest | None],
    ledger: Ledger,
    paths: Paths,
    *,
    judged: bool = False,
) -> Gathered:
    """What a manifest has that was not taken up.

    Args:
        manifest: Of a task, as it is now.
        taken: What the stage `landed` took up last, by role; None where it took up nothing.
        ledger: Knows when datasets were accepted.
        paths: Where their records lie; the time of the file counts where the ledger was lost.
        judged: Whether the task was evaluated before.
    """
    added: dict[Role, int] = {}
    removed = 0
    fresh: list[tuple[Role, ManifestDataset, bool]] = []  # and whether some of its episodes were taken up
    for role in ROLES:
        before = taken.get(role)
        old = {episode.digest for episode in before.episodes} if before is not None else set()
        found = manifest.roles[role]
        digests = {episode.digest for episode in found.episodes}
        removed += len(old - digests)
        if digests - old:
            added[role] = len(digests - old)
        for dataset in found.datasets:
            own = {episode.digest for episode in dataset.episodes}
            if own - old:
                fresh.append((role, dataset, bool(own & old)))
    times = ledger.accepted_at(dataset.digest for _, dataset, _ in fresh) if fresh else {}
    waiting = [_since(dataset, partly, times, paths) for role, dataset, partly in fresh if role in TRAINING_ROLES]
    return Gathered(
        manifest.task,
        manifest.version,
        added,
        removed,
        tuple(dataset.id for _, dataset, _ in fresh),
        min(waiting, default=None),
        judged,
    )


def due(gathered: Gathered, rules: Retraining, now: float) -> Due:
    """Whether what has gathered is enough for a retraining.

    Withdrawn episodes are out at once: nobody waits for a batch to have their data removed. Trials that landed by
    themselves are judged at once: nothing trains on them.

    Args:
        gathered: What has gathered.
        rules: How much is enough.
        now: Seconds since 1970.
    """
    if gathered.removed:
        return Due(True, f"{_count(gathered.removed)} of {gathered.task} withdrawn")
    count = gathered.episodes
    if gathered.oldest is None:
        trials = gathered.added.get("evaluation", 0)
        if trials and gathered.judged:
            return Due(True, f"{_count(trials)} of {gathered.task} to evaluate")
        rest = f"{_count(trials)} for evaluation, and no policy yet" if trials else "nothing new"
        return Due(False, f"{gathered.task}: {rest}")
    waited = max(0.0, now - gathered.oldest)
    if count >= rules.episodes:
        return Due(True, f"{_count(count)} of {gathered.task} gathered, {rules.episodes} are enough")
    if waited >= rules.hours * HOUR:
        return Due(True, f"{_count(count)} of {gathered.task} waited for {duration(waited)}, at most {rules.hours:g} h")
    return Due(
        False,
        f"{count} of {rules.episodes} episodes of {gathered.task} gathered, the oldest {duration(waited)} "
        f"of {rules.hours:g} h ago",
    )


def _since(dataset: ManifestDataset, partly: bool, times: Mapping[str, tuple[float, float]], paths: Paths) -> float:
    """When what is new of a dataset was accepted: where a part was taken up before, the rest came last."""
    if dataset.digest in times:
        first, last = times[dataset.digest]
        return last if partly else first
    record = paths.accepted / f"{dataset.id}.json"
    return record.stat().st_mtime if record.exists() else 0.0


def _count(episodes: int) -> str:
    return "1 episode" if episodes == 1 else f"{episodes} episodes"
