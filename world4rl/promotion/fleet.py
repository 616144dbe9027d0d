"""The deployment ledger: which robot runs which policy, since when, and how that policy stands now."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from world4rl.errors import ConfigError, DataError
from world4rl.files import replacing
from world4rl.paths import Paths
from world4rl.promotion.champions import champion_folder, refuse_withdrawn, subjects_of
from world4rl.promotion.history import (
    Clock,
    History,
    deciding,
    read_history,
    require_words,
    resolve,
    stamp,
    utc_now,
)
from world4rl.provenance.decisions import Decisions, Deployment
from world4rl.provenance.digests import digest_folder
from world4rl.provenance.signatures import beside


@dataclass(frozen=True)
class Running:
    """What a robot runs for a task.

    Attributes:
        robot: Its name.
        task: The task.
        policy: The policy's digest.
        since: ISO 8601, UTC.
        by: Who deployed it.
        because: Why, in a sentence.
        standing: `champion`, `earlier champion` or `never promoted`.
        withdrawn: When episodes that it was made from were withdrawn, ISO 8601, UTC; None where none were.
    """

    robot: str
    task: str
    policy: str
    since: str
    by: str
    because: str
    standing: str
    withdrawn: str | None


def fleet(paths: Paths) -> list[Running]:
    """What every robot runs, sorted by robot and task."""
    history = read_history(paths)
    return [_running(history, said) for _, said in sorted(history.deployments().items())]


def _running(history: History, said: Deployment) -> Running:
    assert said.policy is not None
    champion, withdrawal = history.champion(said.task), history.withdrawal(said.policy)
    if champion is not None and champion.policy == said.policy:
        standing = "champion"
    elif any(reign.policy == said.policy for reign in history.reigns(said.task)):
        standing = "earlier champion"
    else:
        standing = "never promoted"
    return Running(
        robot=said.robot,
        task=said.task,
        policy=said.policy,
        since=said.at,
        by=said.by,
        because=said.because,
        standing=standing,
        withdrawn=None if withdrawal is None else withdrawal.at,
    )


def deploy(
    paths: Paths,
    private: Path,
    *,
    robot: str,
    task: str,
    by: str,
    because: str,
    policy: str | None = None,
    unpromoted: bool = False,
    out: Path | None = None,
    clock: Clock = utc_now,
) -> tuple[Running, bool]:
    """Notes that a robot runs a policy from now on, after verifying the policy's bytes.

    Args:
        paths: The repository.
        private: The key to sign with.
        robot: Its name.
        task: The task.
        by: Who answers for it.
        because: Why, in a sentence.
        policy: Digits that its digest begins with; None: the champion.
        unpromoted: Whether the task's cloned or refined policy may be taken although the gate never promoted it.
        out: Where the robot shall find the policy: the folder is copied there, and its signature to `OUT.sig`.
        clock: Tells the time.

    Returns:
        What runs there now, and whether that is new.

    Raises:
        ConfigError: there is no such policy, it was never promoted, `out` is taken or cannot be written, or the words
            say nothing.
        DataError: it was made from withdrawn episodes, or its bytes are missing or differ.
    """
    require_words(robot=robot, by=by, because=because)
    with deciding(paths) as history:
        digest, folder = _choose(paths, history, task, policy, unpromoted)
        refuse_withdrawn(history, digest)
        if out is not None:
            _hand_over(folder, digest, paths.signature(digest), out)
        before = history.deployments().get((robot, task))
        if before is not None and before.policy == digest:
            return _running(history, before), False
        said = Deployment(at=stamp(clock()), by=by, because=because, robot=robot, task=task, policy=digest)
        Decisions(paths).add(subjects_of(paths, folder), said, private)
        return _running(history, said), True


def undeploy(
    paths: Paths, private: Path, *, robot: str, task: str, by: str, because: str, clock: Clock = utc_now
) -> None:
    """Notes that a robot no longer runs any policy for a task.

    Raises:
        ConfigError: it does not run any, or the words say nothing.
    """
    require_words(by=by, because=because)
    with deciding(paths) as history:
        if (robot, task) not in history.deployments():
            raise ConfigError(f"{robot} runs no policy for {task}", where=robot, remedy="`world4rl fleet` shows all")
        said = Deployment(at=stamp(clock()), by=by, because=because, robot=robot, task=task, policy=None)
        Decisions(paths).add((), said, private)


def _choose(paths: Paths, history: History, task: str, digits: str | None, unpromoted: bool) -> tuple[str, Path]:
    """The policy's digest and its folder, verified."""
    champions = [reign.policy for reign in history.reigns(task)]
    others: dict[str, Path] = {}
    if unpromoted:
        present = (folder for folder in (paths.refined(task), paths.bc(task)) if folder.is_dir())
        others = {digest_folder(folder): folder for folder in present}
    if digits is None and not champions:
        raise ConfigError(
            f"{task} has no champion",
            where=task,
            remedy="`world4rl challenge` promotes one; --unpromoted with --policy deploys another policy all the same",
        )
    if digits is None:
        digest = champions[-1]
    else:
        try:
            digest = resolve(digits, [*champions, *others], f"policies of {task}")
        except ConfigError as error:
            if unpromoted:
                raise
            raise ConfigError(
                f"{error.problem} among those that were promoted",
                where=error.where,
                remedy=f"{error.remedy}; --unpromoted allows the task's cloned and refined policy, too",
            ) from None
    return digest, champion_folder(paths, history, task, digest) if digest in champions else others[digest]


def _hand_over(folder: Path, digest: str, signature: Path, out: Path) -> None:
    """Copies a policy, and its signature beside it, if anybody has signed it."""
    there = out.is_dir() and any(out.iterdir())
    if (out.exists() and not out.is_dir()) or (there and digest_folder(out) != digest):
        raise ConfigError("something else lies there", where=out, remedy="name another --out, or remove it")
    try:
        if signature.exists():
            with replacing(beside(out)) as fresh:
                shutil.copyfile(signature, fresh)
        if there:
            return
        with replacing(out) as fresh:
            shutil.copytree(folder, fresh)
            if digest_folder(fresh) != digest:
                raise DataError("the copy differs from the policy", where=out, remedy="run the same command again")
    except OSError as error:
        raise ConfigError(
            f"the policy cannot be copied there: {error.strerror or error}", where=out, remedy="name another --out"
        ) from error
