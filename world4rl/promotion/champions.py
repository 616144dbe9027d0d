"""The bytes of every policy that was ever champion, and the pointer that a rollback moves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from world4rl.errors import ConfigError, DataError
from world4rl.files import replacing
from world4rl.paths import Paths
from world4rl.promotion.history import (
    DIGITS,
    Clock,
    History,
    Reign,
    deciding,
    require_words,
    resolve,
    stamp,
    utc_now,
)
from world4rl.provenance.decisions import Decisions, Rollback
from world4rl.provenance.digests import digest_file, digest_folder
from world4rl.provenance.records import Subject, subject


def folder_of(paths: Paths, task: str, policy: str) -> Path:
    """Where the bytes of a champion lie."""
    return paths.champions(task) / policy[:DIGITS]


def champion_folders(paths: Paths, policies: Collection[str]) -> list[Path]:
    """The folders that hold the bytes of champions with these digests, sorted."""
    names = {policy[:DIGITS] for policy in policies}
    return sorted(folder for folder in paths.all_champions.glob("*/*") if folder.name in names)


def subjects_of(paths: Paths, folder: Path) -> list[Subject]:
    """The files of a policy with their digests, as records name them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [subject(path.relative_to(paths.root).as_posix(), digest_file(path)) for path in files]


def keep(source: Path, policy: str, paths: Paths, task: str) -> Path:
    """Puts a policy among the champions' bytes: all of it or nothing, without a copy where the disk allows.

    The files are hard links: whoever makes a policy anew writes new files, and never into these.

    Args:
        source: The policy's folder.
        policy: Its digest.
        paths: The repository.
        task: The task.

    Raises:
        DataError: the folder is not that policy (any more).
    """
    target = folder_of(paths, task, policy)
    if target.is_dir() and digest_folder(target) == policy:
        return target
    with replacing(target) as fresh:
        shutil.copytree(source, fresh, copy_function=_link)
        if digest_folder(fresh) != policy:
            raise DataError(
                f"the policy is not {policy[:DIGITS]} any more: it changed meanwhile",
                where=source,
                remedy="run the same command again: it looks at the policy that is there now",
            )
    return target


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copy2(source, target)


def champion_folder(paths: Paths, history: History, task: str, policy: str) -> Path:
    """The folder of a policy that is or was champion, verified.

    Where it is damaged but the task's refined policy happens to have the same bytes, as after checking out the state
    in which it was promoted, it is restored from there.

    Raises:
        DataError: a file is missing, too much or another; names it, and how to bring the bytes back.
    """
    folder = folder_of(paths, task, policy)
    if folder.is_dir() and digest_folder(folder) == policy:
        return folder
    twin = paths.refined(task)
    if twin.is_dir() and digest_folder(twin) == policy:
        return keep(twin, policy, paths, task)
    where, problem = _difference(paths, history, task, policy)
    raise DataError(
        f"the bytes of the champion {policy[:DIGITS]} are not those that were promoted: {problem}",
        where=where,
        remedy="check out the state of the lineage in which it was promoted (git log refs/world4rl/lineage), run "
        f"`dvc pull {twin.relative_to(paths.root)}` there, and the same command again",
    )


def _difference(paths: Paths, history: History, task: str, policy: str) -> tuple[Path, str]:
    record = history.promotion(task, policy)
    promoted = {one.name: one.sha256 for one in record.subject} if record else {}
    for name, digest in promoted.items():
        path = paths.root / name
        if not path.is_file():
            return path, "the file is missing"
        if digest_file(path) != digest:
            return path, "the file is another one"
    folder = folder_of(paths, task, policy)
    extra = [one.name for one in subjects_of(paths, folder) if one.name not in promoted]
    return (paths.root / extra[0], "the file does not belong there") if extra else (folder, "the folder is missing")


def rollback(
    paths: Paths,
    private: Path,
    task: str,
    *,
    to: str | None,
    by: str,
    because: str,
    clock: Clock = utc_now,
) -> Reign:
    """Makes an earlier champion the champion again. Nothing is trained.

    Args:
        paths: The repository.
        private: The key to sign with.
        task: The task.
        to: Digits that its digest begins with; None: the one that the present champion took the place of.
        by: Who answers for it.
        because: Why, in a sentence.
        clock: Tells the time.

    Raises:
        ConfigError: there is no such champion, or it is champion already; or the words say nothing.
        DataError: it was made from withdrawn episodes, or its bytes are missing or differ.
    """
    require_words(by=by, because=because)
    with deciding(paths) as history:
        reigns = history.reigns(task)
        if not reigns:
            raise ConfigError(f"{task} never had a champion", where=task, remedy="`world4rl champions` lists them")
        now = reigns[-1].policy
        if to is None:
            policy = _before(reigns)
        else:
            policy = resolve(to, (reign.policy for reign in reigns), f"champions of {task}")
        if policy == now:
            raise ConfigError(f"{policy[:DIGITS]} is the champion", where=task, remedy="name another one with --to")
        refuse_withdrawn(history, policy)
        folder = champion_folder(paths, history, task, policy)
        said = Rollback(at=stamp(clock()), by=by, because=because, task=task, policy=policy, replaces=now)
        record = Decisions(paths).add(subjects_of(paths, folder), said, private)
        return History([*history.records, record]).reigns(task)[-1]


def _before(reigns: list[Reign]) -> str:
    """The champion that the present one took the place of when it was promoted."""
    now = reigns[-1].policy
    for reign in reversed(reigns):
        if reign.policy == now and reign.how == "promoted" and reign.replaces is not None:
            return reign.replaces
    raise ConfigError(
        f"there was no champion before {now[:DIGITS]}", where=reigns[-1].task, remedy="name one with --to"
    )


def refuse_withdrawn(history: History, policy: str) -> None:
    """Makes sure that no withdrawal affects a policy.

    Raises:
        DataError: one does.
    """
    withdrawal = history.withdrawal(policy)
    if withdrawal is not None:
        raise DataError(
            f"it was made from episodes that were withdrawn at {withdrawal.at} by {withdrawal.by}: "
            f"{withdrawal.because}",
            where=policy[:DIGITS],
            remedy="choose a policy that was made without them: `world4rl champions --all`",
        )
