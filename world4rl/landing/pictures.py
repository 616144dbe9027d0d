"""A small picture of each quarantined episode: its first, middle and last frame side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from world4rl.config import Params
from world4rl.demos.ingest import Plan, plan_ingest, shrinker
from world4rl.demos.reading import Dataset, VideoCamera, decode_images, open_dataset, read_columns
from world4rl.demos.recording import encode_png
from world4rl.demos.storing import landed_options
from world4rl.errors import World4RLError
from world4rl.files import replacing
from world4rl.paths import Paths

HEIGHT = 96  # pixels
MOST = 50  # pictures a dataset: who has seen so many knows what is wrong
MISSING = 160  # grey: a frame that cannot be decoded


def keep_pictures(
    folder: Path, digest: str | None, quarantined: Sequence[Mapping[str, Any]], params: Params, paths: Paths
) -> None:
    """Draws the quarantined episodes of a dataset, as far as their frames can be decoded.

    Args:
        folder: The dataset.
        digest: Of its content; None where it could not be read.
        quarantined: Entries with the key `episode`, None for the dataset as a whole.
        params: How landed datasets are read.
        paths: Where pictures go.
    """
    episodes = [int(entry["episode"]) for entry in quarantined if entry["episode"] is not None][:MOST]
    if digest is None or not episodes:
        return
    try:
        for episode, picture in contact_sheets(folder, episodes, params):
            with replacing(paths.picture(digest, episode)) as fresh:
                fresh.write_bytes(encode_png(picture))
    except (World4RLError, ArithmeticError, LookupError, TypeError, ValueError):
        return  # what cannot be decoded has no picture; why, the entry says


def pictured(paths: Paths) -> set[str]:
    """Digests of the datasets that have pictures."""
    return {_digest(path) for path in _pictures(paths)}


def drop_pictures(but: set[str], paths: Paths) -> None:
    """Removes the pictures of datasets whose digest is not among those given."""
    for path in _pictures(paths):
        if _digest(path) not in but:
            path.unlink(missing_ok=True)


def _pictures(paths: Paths) -> list[Path]:
    return sorted(paths.picture("", 0).parent.glob("*.png"))


def _digest(picture: Path) -> str:
    return picture.name.partition("-")[0]


def contact_sheets(folder: Path, episodes: Sequence[int], params: Params) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (episode, picture uint8 (H, W, 3)) for those of the episodes that have rows.

    Raises:
        DataError: the dataset as a whole cannot be read.
    """
    dataset = open_dataset(folder)
    plan = plan_ingest(dataset, landed_options(params))
    owner = read_columns(dataset, []).index["episode_index"].to_numpy(np.int64)
    places = {episode: np.flatnonzero(owner == episode) for episode in episodes}
    found = [(episode, rows) for episode, rows in places.items() if len(rows)]
    shown = list(_frames(dataset, plan, found))
    for (episode, _), frames in zip(found, shown, strict=True):
        height, width = next((f.shape[:2] for f in frames if f is not None), (HEIGHT, HEIGHT))
        blank = np.full((height, width, 3), MISSING, np.uint8)
        yield episode, np.concatenate([blank if frame is None else frame for frame in frames], axis=1)


def _frames(
    dataset: Dataset, plan: Plan, episodes: Sequence[tuple[int, np.ndarray]]
) -> Iterator[list[np.ndarray | None]]:
    """The three frames of each episode, which stand in ascending order with their rows."""
    camera = next(iter(plan.cameras.values()))
    height, width = camera.image_size
    shrink = shrinker((HEIGHT, max(1, round(width * HEIGHT / height))), "stretch")
    if camera.dtype == "image":
        wanted = sorted({int(row) for _, rows in episodes for row in _three(rows)})
        decoded = decode_images(dataset, [camera.name], [range(row, row + 1) for row in wanted], shrink)
        by_row = {row: each[camera.name].frames[0] for row, each in zip(wanted, decoded, strict=True)}
        for _, rows in episodes:
            yield [by_row[int(row)] for row in _three(rows)]
        return
    entries = dataset.episodes.set_index("episode_index", drop=False)
    for episode, rows in episodes:
        video = VideoCamera(dataset, camera.name, shrink)
        try:
            frames = video.decode(dict(entries.loc[episode]), len(rows)).frames
        finally:
            video.close()
        yield [frames[place] for place in _three(np.arange(len(frames)))]


def _three(rows: np.ndarray) -> tuple[int, int, int]:
    return int(rows[0]), int(rows[len(rows) // 2]), int(rows[-1])
