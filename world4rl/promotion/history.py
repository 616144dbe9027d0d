"""What the signed decisions add up to: who is champion, who was, what runs on which robot, what is withdrawn.

Nothing is kept beside the chain of decisions: every answer here is read off it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from world4rl.errors import ConfigError
from world4rl.files import locked
from world4rl.paths import Paths
from world4rl.provenance.decisions import (
    Decision,
    Decisions,
    Deployment,
    Promotion,
    Rejection,
    Rollback,
    Withdrawal,
)
from world4rl.provenance.records import Record

DIGITS = 16  # of a digest, where people read it and in the names of folders
Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Now."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """ISO 8601, UTC, in seconds."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def require_words(**said: str) -> None:
    """Makes sure that what is kept for good, by the option that gave it, is something on one line.

    Raises:
        ConfigError: it is empty, or has signs that cannot be printed.
    """
    for option, text in said.items():
        if not text.strip() or not text.isprintable():
            raise ConfigError(
                f"{text!r} cannot be kept for good", where=f"--{option}", remedy="give it in words, on one line"
            )


@contextmanager
def deciding(paths: Paths) -> Iterator[History]:
    """The decisions so far, while nobody else of this module's users adds one: look, decide, add."""
    with locked(paths.decisions.with_name("decisions.deciding.lock")):
        yield read_history(paths)


def read_history(paths: Paths) -> History:
    """The decisions so far.

    Raises:
        DataError: the chain is broken, or a decision is not signed by a trusted key.
    """
    return History(Decisions(paths).read())


@dataclass(frozen=True)
class Reign:
    """A time at which a policy became the champion of a task.

    Attributes:
        task: The task.
        policy: The policy's digest.
        since: ISO 8601, UTC.
        by: Who answers for it.
        because: Why, in a sentence.
        how: `promoted` or `rolled back to`.
        replaces: The champion before it; None where there was none.
        evidence: Figures of the comparison in which it was promoted, then or earlier.
    """

    task: str
    policy: str
    since: str
    by: str
    because: str
    how: str
    replaces: str | None
    evidence: Mapping[str, Any]


class History:
    """Questions about a chain of decisions.

    Args:
        records: The chain, oldest first.
    """

    def __init__(self, records: Sequence[Record[Decision]]) -> None:
        self.records = tuple(records)

    @property
    def tasks(self) -> list[str]:
        """Tasks that have or had a champion, sorted."""
        return sorted({one.predicate.task for one in self.records if isinstance(one.predicate, Promotion | Rollback)})

    def reigns(self, task: str) -> list[Reign]:
        """The champions of a task, oldest first; one that came back has several."""
        found: list[Reign] = []
        evidence: dict[str, Mapping[str, Any]] = {}
        for record in self.records:
            said = record.predicate
            if not isinstance(said, Promotion | Rollback) or said.task != task:
                continue
            if isinstance(said, Promotion):
                evidence[said.policy] = said.evidence
            found.append(
                Reign(
                    task=task,
                    policy=said.policy,
                    since=said.at,
                    by=said.by,
                    because=said.because,
                    how="promoted" if isinstance(said, Promotion) else "rolled back to",
                    replaces=said.replaces,
                    evidence=evidence.get(said.policy, {}),
                )
            )
        return found

    def champion(self, task: str) -> Reign | None:
        """Who is champion of a task now."""
        reigns = self.reigns(task)
        return reigns[-1] if reigns else None

    def promotion(self, task: str, policy: str) -> Record[Any] | None:
        """The last record that promoted a policy; its subjects are the policy's files."""
        found = [
            record
            for record in self.records
            if isinstance(record.predicate, Promotion)
            and (record.predicate.task, record.predicate.policy) == (task, policy)
        ]
        return found[-1] if found else None

    def deposed(self, task: str, policy: str) -> Rollback | None:
        """The word of a person that a policy shall be champion no longer, unless it came back since."""
        found: Rollback | None = None
        for record in self.records:
            said = record.predicate
            if isinstance(said, Rollback) and said.task == task and said.replaces == policy:
                found = said
            elif isinstance(said, Promotion | Rollback) and said.task == task and said.policy == policy:
                found = None
        return found

    def judged(self, task: str, policy: str, opponent: str) -> list[Record[Any]]:
        """The promotions and rejections of a challenger against an opponent, oldest first."""
        return [
            record
            for record in self.records
            if isinstance(record.predicate, Promotion | Rejection)
            and (record.predicate.task, record.predicate.policy) == (task, policy)
            and record.predicate.evidence.get("opponent", {}).get("policy") == opponent
        ]

    def withdrawal(self, policy: str) -> Withdrawal | None:
        """The first withdrawal of episodes that a policy was made from; None where there is none."""
        for record in self.records:
            said = record.predicate
            if isinstance(said, Withdrawal) and any(one.sha256 == policy for one in said.affected):
                return said
        return None

    def deployments(self) -> dict[tuple[str, str], Deployment]:
        """What every robot runs, by robot and task."""
        running: dict[tuple[str, str], Deployment] = {}
        for record in self.records:
            said = record.predicate
            if isinstance(said, Deployment):
                running.pop((said.robot, said.task), None)
                if said.policy is not None:
                    running[said.robot, said.task] = said
        return running


def resolve(digits: str, policies: Iterable[str], where: str) -> str:
    """The one policy whose digest begins with these digits.

    Raises:
        ConfigError: none does, or several do.
    """
    known = sorted(set(policies))
    found = [policy for policy in known if digits and policy.startswith(digits.lower())]
    if len(found) != 1:
        what = "several policies begin" if found else "no policy begins"
        shown = ", ".join(policy[:DIGITS] for policy in found or known) or "none"
        raise ConfigError(f"{what} with {digits!r}", where=where, remedy=f"give the digits of one of these: {shown}")
    return found[0]


def evidence_line(evidence: Mapping[str, Any]) -> str:
    """The figures of a comparison, on a line."""
    if "effect_points" not in evidence:
        failed = [check["reason"] for check in evidence.get("checks", ()) if not check["passed"]]
        return "; ".join(failed) or "no trials"
    low, high = evidence["interval_points"]
    counts = [f"{side['successes']} of {side['trials']}" for side in (evidence["challenger"], evidence["opponent"])]
    return (
        f"{counts[0]} against {counts[1]} trials succeeded: {evidence['effect_points']:+.1f} points "
        f"({100 * evidence['confidence']:.0f} % interval {low:+.1f} to {high:+.1f}), p = {evidence['p_value']:.2g}"
    )
