"""`world4rl refresh`: rollouts of the refined policy, landed like anybody's, so that the world model learns from them.

A world model is trained on what the cloned policy does. Refined in it, the policy goes where the model knows less.
Its rollouts in the simulator come in through the landing folder: checked, recorded, stored and trained on as all others
are, and the next version of the world model is the next generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from world4rl import machine
from world4rl.config import Params
from world4rl.demos.collect import alternating, record
from world4rl.demos.seeds import refresh_seeds
from world4rl.errors import DataError
from world4rl.generations.history import generations
from world4rl.landing.deposit import land
from world4rl.landing.inbox import Inbox
from world4rl.paths import Paths
from world4rl.promotion.champions import champion_folder, refuse_withdrawn
from world4rl.promotion.history import read_history
from world4rl.provenance.digests import digest_folder

Which = Literal["refined", "champion"]


def refresh(
    params: Params, paths: Paths, inbox: Inbox, task: str, *, which: Which = "refined", episodes: int | None = None
) -> str:
    """Records rollouts for the next generation of the world model and lands them.

    The number of the generation is in their seeds and in the name of the dataset: asked for twice before the world
    model was trained, it says that they have landed. Which of them nothing trains on is fixed here, a share of
    `reading.held_out`; episodes that landed earlier stay where they are.

    Args:
        params: Simulation, seed and shares.
        paths: Where the policy lies.
        inbox: The landing folder.
        task: The task.
        which: The refined policy that lies there, or the champion.
        episodes: How many; None: `rollouts.policy`, as for the cloned policy.

    Returns:
        The dataset's name in the landing folder.

    Raises:
        DataError: there is no such policy, its bytes are missing or differ, the champion was made from withdrawn
            episodes, or the rollouts for this generation have landed.
        ConfigError: there are no seeds for so many.
    """
    from world4rl.policies.acting import policy_controller
    from world4rl.policies.folder import load_policy

    generation = max(len(generations(paths)), 1) + 1
    name = f"refresh-{task}-generation-{generation}"
    arrival = inbox.look(name)
    if arrival is not None and not arrival.uploading:
        raise DataError(
            f"the rollouts for generation {generation} have landed",
            where=f"{inbox.address}/{name}",
            remedy="train the world model on them first",
        )
    folder = paths.refined(task) if which == "refined" else _champion(paths, task)
    policy = load_policy(folder, machine.select_device(params.device))
    seeds = refresh_seeds(params.seed, task, generation, episodes or params.rollouts.policy)
    controller = alternating(policy_controller(policy), policy_controller(policy, sample_seed=seeds[0]))
    train, test = split(seeds, params.reading.held_out)
    side = {
        "source": "policy",
        "task": task,
        "session": f"generation {generation}",
        "policy": digest_folder(folder),
        "policy_acts": "mean in even episodes, sampled in odd ones",
    }
    with TemporaryDirectory() as scratch:
        dataset = Path(scratch) / name
        parts = {"train": (controller, train), "test": (controller, test)}
        record(
            dataset,
            params,
            task,
            {split_: part for split_, part in parts.items() if part[1]},
            side,
            validation=params.reading.validation,
        )
        return land(dataset, inbox, name=name, said={})


def split(seeds: Sequence[int], held_out: float) -> tuple[Sequence[int], Sequence[int]]:
    """Seeds to learn from, at least one, and seeds that nothing trains on."""
    test = min(round(len(seeds) * held_out), len(seeds) - 1)
    return seeds[: len(seeds) - test], seeds[len(seeds) - test :]


def _champion(paths: Paths, task: str) -> Path:
    history = read_history(paths)
    champion = history.champion(task)
    if champion is None:
        raise DataError(f"{task} has no champion", where=paths.decisions, remedy="promote a policy, or take `refined`")
    refuse_withdrawn(history, champion.policy)
    return champion_folder(paths, history, task, champion.policy)
