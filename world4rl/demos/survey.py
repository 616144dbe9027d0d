"""What a dataset holds, checked and digested as for a store, without writing one: the question asked at the door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from world4rl.demos.checks import Finding, quarantine_list
from world4rl.demos.ingest import IngestOptions, distinct, plan_ingest, sound_episodes
from world4rl.demos.reading import open_dataset


@dataclass(frozen=True)
class Surveyed:
    """A sound episode.

    Attributes:
        episode: Its index in the dataset.
        task: The task string of its first row.
        length: Its rows.
        success: Whether it is a success; None where nothing says so.
        digest: SHA-256 of what training can see of it, at the size that the options give.
    """

    episode: int
    task: str
    length: int
    success: bool | None
    digest: str


@dataclass(frozen=True)
class Survey:
    """What a dataset holds.

    Attributes:
        episodes: The sound ones, in their order.
        quarantined: An entry {episode, check, reason, evidence} for each of the others.
        side: The dataset's side file, without the list of episodes.
    """

    episodes: Sequence[Surveyed]
    quarantined: Sequence[Mapping[str, Any]]
    side: Mapping[str, Any]


def survey(dataset: Path, options: IngestOptions, known: Mapping[str, str]) -> Survey:
    """Reads, decodes and checks a whole dataset.

    Args:
        dataset: Root folder of a LeRobot v3 dataset.
        options: As for `ingest`.
        known: Where episodes that came before lie, in words, by digest: the same again is a duplicate.

    Raises:
        DataError: the dataset as a whole cannot be used.
    """
    source = open_dataset(dataset)
    plan = plan_ingest(source, options)
    findings: list[Finding] = []
    said = {row["episode_index"] for row in source.side.get("episodes", []) if row.get("success") is not None}
    episodes = [
        Surveyed(
            found.episode,
            found.task,
            len(found.actions),
            bool(found.succeeded) if plan.success is not None or found.episode in said else None,
            found.digest,
        )
        for found in distinct(sound_episodes(source, plan, options, findings), known, options, findings)
    ]
    side = {key: value for key, value in source.side.items() if key != "episodes"}
    return Survey(episodes, quarantine_list(findings), side)
