import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from assets.reporter import PipesReporter
from world4rl.progress import Update

ROOT = Path(__file__).resolve().parents[2]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def update(done, *, finished=False, label="train"):
    return Update(label, done, 10, "step", float(done), 1.0, {"loss": 0.5}, finished=finished)


def test_nothing_where_no_session_waits(monkeypatch):
    monkeypatch.delenv("DAGSTER_PIPES_CONTEXT", raising=False)
    assert PipesReporter.from_environment() is None


def test_at_most_one_entry_a_second_and_only_surpassed_progress_is_lost():
    sent, clock = [], Clock()
    reporter = PipesReporter(lambda text: sent.append((clock.now, text)), clock=clock)
    for tenth in range(40):
        clock.now = tenth / 10
        reporter.updated(update(tenth))
        if tenth in (3, 4):
            reporter.logged(f"message {tenth}")
    reporter.updated(update(40, finished=True))
    reporter.close(None)
    times = [time for time, _ in sent[:-1]]
    assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(times))
    text = "\n".join(entry for _, entry in sent)
    assert "message 3" in text
    assert "message 4" in text
    assert text.count("train: 1") >= 1
    assert sent[-1][1].startswith("train: 40/10 steps, in")


def test_an_error_is_said_before_the_session_closes():
    said = []
    reporter = PipesReporter(said.append, lambda: said.append("closed"))
    reporter.logged("one")
    reporter.close(ValueError("no data"))
    assert said == ["one", "ValueError: no data", "closed"]


@pytest.mark.parametrize("session", [True, False])
def test_a_stage_finds_the_reporter_by_its_entry_point(tmp_path, session):
    messages = tmp_path / "messages"
    code = (
        "from dagster_pipes import encode_param\nimport os\n"
        + (
            "os.environ['DAGSTER_PIPES_CONTEXT'] = encode_param({'data': {k: None for k in ("
            "'asset_keys', 'code_version_by_asset_key', 'provenance_by_asset_key', 'partition_key', "
            "'partition_key_range', 'partition_time_window', 'job_name')} | "
            "{'run_id': 'r', 'retry_number': 0, 'extras': {}}})\n"
            f"os.environ['DAGSTER_PIPES_MESSAGES'] = encode_param({{'path': {str(messages)!r}}})\n"
            if session
            else ""
        )
        + "from world4rl import progress\nwith progress.session('toy'):\n    progress.log('hello')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    assert messages.exists() == session
    if session:
        sent = [json.loads(line) for line in messages.read_text().splitlines()]
        assert sent[0]["method"] == "opened"
        assert sent[-1]["method"] == "closed"
        assert "hello" in "".join(m["params"]["message"] for m in sent if m["method"] == "log")
