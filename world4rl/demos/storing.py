"""The stages `demo_store` and `rollout_store`: what was collected, and what landed, into Zarr stores.

A store a dataset, so that what lands makes one more and leaves the others alone: a store that was made from the same
dataset, in the same way, by the same code is kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import world4rl.demos
from world4rl import progress
from world4rl.config import Params
from world4rl.demos.ingest import IngestOptions, ingest
from world4rl.demos.layout import COLLECTED, UNLABELLED
from world4rl.demos.store import EpisodeStore
from world4rl.envs.tasks import is_simulated
from world4rl.files import read_json, write_json
from world4rl.paths import Paths, Source
from world4rl.provenance.digests import digest_file, digest_folder, digest_json, merkle_root
from world4rl.provenance.manifests import read_role_manifest


@dataclass(frozen=True)
class Part:
    """A dataset that becomes a store.

    Attributes:
        name: Of the store's folder.
        dataset: Root folder of the LeRobot dataset.
        digest: Of its content.
        options: How it is read.
    """

    name: str
    dataset: Path
    digest: str
    options: IngestOptions

    def origin(self) -> str:
        """Digest of all that decides what the store looks like: dataset, options and code."""
        folder = Path(world4rl.demos.__file__).parent
        code = {path.name: digest_file(path) for path in sorted(folder.glob("*.py"))}
        options = asdict(self.options)
        options["waived"] = {episode: sorted(names) for episode, names in self.options.waived.items()}
        options["only"] = None if self.options.only is None else sorted(self.options.only)
        options["settings"] = self.options.settings.model_dump(mode="json")
        return digest_json({"dataset": self.digest, "options": options, "code": code})


def store_demos(params: Params, paths: Paths, task: str) -> None:
    """The stage `demo_store@task`: expert demonstrations.

    Raises:
        DataError: a dataset cannot be used.
    """
    figures = _store(params, paths, task, "expert")
    write_json(paths.store_report(task, "expert"), figures)
    _tell(figures)


def store_rollouts(params: Params, paths: Paths, task: str) -> None:
    """The stage `rollout_store@task`: rollouts of policies, and random ones.

    Raises:
        DataError: a dataset cannot be used.
    """
    sources: tuple[Source, ...] = ("policy", "random")
    parts = {source: _store(params, paths, task, source) for source in sources}
    figures: dict[str, Any] = {key: sum(parts[s][key] for s in sources) for key in ("accepted", "frames", "seconds")}
    figures["quarantined"] = [{**entry, "source": s} for s in sources for entry in parts[s]["quarantined"]]
    figures["digest"] = merkle_root(parts[s]["digest"] for s in sources)
    write_json(paths.store_report(task, "rollouts"), {**figures, "sources": parts})
    _tell(figures)


def _store(params: Params, paths: Paths, task: str, source: Source) -> dict[str, Any]:
    """Brings the folder of a source's stores up to date; returns its figures."""
    folder = paths.store(task, source)
    folder.mkdir(parents=True, exist_ok=True)
    parts = list(_parts(params, paths, task, source))
    made = {part.name: _store_part(part, folder / part.name, f"{task} {source}") for part in parts}
    for path in folder.iterdir():
        if path.name not in made:  # withdrawn, or left behind by a process that was killed
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    figures: dict[str, Any] = {
        key: sum(made[part.name][key] for part in parts) for key in ("accepted", "frames", "seconds")
    }
    known = [each["successes"] for each in made.values() if each["successes"] is not None]
    figures["successes"] = sum(known) if known else None
    figures["quarantined"] = [
        {**entry, "dataset": name} for name, each in made.items() for entry in each["quarantined"]
    ]
    figures["digest"] = merkle_root(sorted(each["digest"] for each in made.values()))
    return figures


def _parts(params: Params, paths: Paths, task: str, source: Source) -> Iterator[Part]:
    raw = paths.raw(task, source)
    collected = IngestOptions(
        tasks=(task,),
        action_range=(-1.0, 1.0),
        settings=params.store,
        allow_empty=source == "random" or not is_simulated(task),
    )
    yield Part(COLLECTED, raw, digest_folder(raw), collected)
    for dataset in read_role_manifest(paths.landed(task, source)).datasets:
        options = replace(
            landed_options(params),
            task=task,
            source=source,
            only=frozenset(episode.episode for episode in dataset.episodes),
            waived={episode.episode: frozenset(episode.waived) for episode in dataset.episodes},
            shares=(params.reading.held_out, 0.0 if source == "expert" else params.reading.validation),
        )
        yield Part(dataset.id, paths.landed(task, source) / dataset.id, dataset.digest, options)


def landed_options(params: Params) -> IngestOptions:
    """How landed datasets are read: pictures of the simulator's size, features as the parameters map them."""
    size = params.simulation.image_size
    return IngestOptions(
        mapping=params.reading.mapping,
        size=(size, size),
        fit=params.reading.fit,
        action_range=params.reading.action_range,
        settings=params.store,
    )


def _store_part(part: Part, out: Path, label: str) -> dict[str, Any]:
    """Makes a store unless the one that is there was made alike; returns its figures."""
    origin = part.origin()
    if _made_alike(out, origin):
        seconds = 0.0
    else:
        report = ingest(part.dataset, out, part.options, origin=origin)
        seconds = report.seconds
        for line in report.lines():
            if line.startswith(("accepted", "refused")):
                progress.log(f"{label} {part.name}: {line}")
    store = EpisodeStore.open(out)
    labelled = store.description["labels"] != UNLABELLED
    return {
        "accepted": len(store),
        "quarantined": list(store.description["quarantined"]),
        "frames": int(store.description["frames"]),
        "successes": int(store.episodes["success"].sum()) if labelled else None,
        "digest": store.digest,
        "seconds": seconds,
    }


def _made_alike(out: Path, origin: str) -> bool:
    try:
        return bool(read_json(out / "store.json").get("origin") == origin)
    except (OSError, ValueError):
        return False


def _tell(figures: Mapping[str, Any]) -> None:
    progress.metrics(
        {"accepted": figures["accepted"], "quarantined": len(figures["quarantined"]), "frames": figures["frames"]}
    )
