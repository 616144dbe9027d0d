"""Where a LeRobot v3 dataset keeps its files, relative to its root, and names that stores made of them share."""

from __future__ import annotations

VERSION = "v3.0"
INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
SIDE_FILE = "meta/world4rl.json"  # ours: LeRobot drops keys that it does not know from info.json, but keeps other files
INDEX_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
COLLECTED = "collected"  # the store of what this repository's simulator recorded
UNLABELLED = "none"  # `labels` in store.json where nothing gives success
