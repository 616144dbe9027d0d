"""Retraining by itself, tick by tick, on a toy project and a Dagster instance of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetKey,
    AssetsDefinition,
    DagsterInstance,
    DagsterRunStatus,
    Definitions,
    RunRequest,
    SkipReason,
    asset,
    build_schedule_context,
    build_sensor_context,
)
from dagster._core.storage.tags import PARTITION_NAME_TAG

from pipelines import automation
from pipelines.attempts import BACK_OFF
from pipelines.definitions import build_defs
from tests.pipelines.landed import accept
from world4rl.config import load_profile
from world4rl.paths import Paths
from world4rl.provenance.manifests import write_manifests

ONE, OTHER = load_profile("ci").tasks
SHARED = {"world_model", "success_classifier", "fidelity", "report"}
OF_A_TASK = ("landed", "demo_store", "bc", "policy_rollouts", "rollout_store", "refined", "evaluation")
HOUR = 3600.0
CHALLENGE = (sys.executable, "challenge.py")
now = time.time


def of(task: str, *steps: str) -> set[str]:
    return {f"{step}@{task}" for step in steps or OF_A_TASK}


def asked(requests: Sequence[RunRequest]) -> list[tuple[str | None, str | None]]:
    return [(request.job_name, request.partition_key) for request in requests]


class Site:
    """A toy project with its automation; time passes when it is told to."""

    def __init__(self, toy: Any, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
        self.toy, self.instance = toy, instance
        self.paths = Paths(toy.root)
        self.cursor: str | None = None
        self.why: str | None = None
        self.events: list[Any] = []
        self.later = 0.0
        monkeypatch.setattr(automation, "now", lambda: now() + self.later)
        self.load()

    def load(self, more_assets: Sequence[AssetsDefinition] = (), challenge: Sequence[str] | None = None) -> None:
        """Loads the code location anew."""
        self.definitions: Definitions = build_defs(root=self.toy.root, more_assets=more_assets, challenge=challenge)

    def land(self, task: str, episodes: int = 1, role: Any = "expert") -> str:
        return accept(self.toy.root, task, episodes, role=role, at=now() + self.later)

    def tick(self, *, seconds: float = 0.0, forget: bool = False) -> list[RunRequest]:
        """A tick of the sensor; `forget`: its cursor is lost, as when the daemon dies before it is written."""
        self.later += seconds
        sensor = self.definitions.resolve_sensor_def("batch_policy")
        # Contexts are closed here: one that Python clears away later would take the next test's instance with it.
        with build_sensor_context(instance=self.instance, cursor=self.cursor, definitions=self.definitions) as context:
            data = sensor.evaluate_tick(context)
        self.why, self.events = data.skip_message, list(data.asset_events)
        if not forget:
            self.cursor = data.cursor
        return list(data.run_requests or [])

    def execute(self, requests: Sequence[RunRequest]) -> list[bool]:
        """Executes runs one after the other; whether each ended well."""
        results = [
            self.definitions.resolve_job_def(str(request.job_name)).execute_in_process(
                instance=self.instance,
                asset_selection=list(request.asset_selection or []),
                partition_key=request.partition_key,
                tags=dict(request.tags),
                raise_on_error=False,
            )
            for request in requests
        ]
        return [result.success for result in results]

    def make(self, requests: Sequence[RunRequest]) -> list[bool]:
        """Does the same as `execute`, quicker: DVC alone runs the stages, and the instance is told of a run."""
        for request in requests:
            task = "" if request.partition_key is None else f"@{request.partition_key}"
            stages = [f"{key.to_user_string()}{task}" for key in request.asset_selection or ()]
            result = self.toy.dvc("repro", "-s", *stages)
            assert result.returncode == 0, result.stderr
            self.begin(request, DagsterRunStatus.SUCCESS)
        return [True] * len(requests)

    def go_on(self, *, through_dagster: bool = False) -> list[tuple[str | None, str | None]]:
        """Ticks and runs until a tick asks for nothing; what was asked for, in order."""
        found: list[tuple[str | None, str | None]] = []
        while requests := self.tick():
            found += asked(requests)
            assert all(self.execute(requests) if through_dagster else self.make(requests))
            assert len(found) < 20, "it never ends"
        return found

    def begin(self, request: RunRequest, status: DagsterRunStatus = DagsterRunStatus.STARTED) -> None:
        """Creates the run of a request in a state."""
        job = self.definitions.resolve_job_def(str(request.job_name))
        tags = dict(request.tags) | ({PARTITION_NAME_TAG: request.partition_key} if request.partition_key else {})
        self.instance.create_run_for_job(job, tags=tags, status=status)

    def retrain(self) -> None:
        """Somebody starts the job `retrain`."""
        assert self.definitions.resolve_job_def("retrain").execute_in_process(instance=self.instance).success

    def night(self) -> RunRequest | SkipReason:
        """The schedule's verdict at two in the morning."""
        (nightly,) = self.definitions.schedules
        at = datetime(2027, 1, 1, 2, tzinfo=UTC)
        with build_schedule_context(instance=self.instance, scheduled_execution_time=at) as context:
            data = nightly.evaluate_tick(context)
        return data.run_requests[0] if data.run_requests else SkipReason(data.skip_message)


@pytest.fixture(scope="module")
def made(make_toy: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A project where everything was made once; five episodes of a task are a batch."""
    toy = make_toy(tmp_path_factory.mktemp("made") / "project")
    toy.set("retraining/episodes", 5)
    toy.set("retraining/hours", 24.0)
    assert toy.dvc("repro").returncode == 0
    toy.ran()
    return toy


@pytest.fixture
def site(made: Any, make_copy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    (tmp_path / "instance").mkdir()
    with DagsterInstance.local_temp(str(tmp_path / "instance")) as instance:
        yield Site(make_copy(made, tmp_path / "project"), instance, monkeypatch)


def test_episodes_of_one_task_rebuild_that_task_and_what_is_shared_and_then_nothing(site: Site) -> None:
    site.land(ONE, 5)
    asked_for = site.go_on(through_dagster=True)
    assert asked_for == [("collect", ONE), ("imagine", None), ("refine", ONE), ("write_report", None)]
    ran = site.toy.ran()
    assert set(ran) == of(ONE) | SHARED
    assert len(ran) == len(set(ran)), "nothing twice"
    assert str(site.why).startswith(f"done: 5 episodes of {ONE} gathered, 5 are enough")
    for _ in range(2):
        assert site.tick() == []
        assert site.why == f"{ONE}: nothing new; {OTHER}: nothing new"


def test_fewer_episodes_wait_and_the_tick_says_how_many_and_how_long(site: Site) -> None:
    site.land(ONE, 2)
    assert site.tick(seconds=2 * HOUR) == []
    assert f"2 of 5 episodes of {ONE} gathered, the oldest 2 h 0 min of 24 h ago" in str(site.why)
    site.land(ONE, 1)
    assert site.tick(seconds=21 * HOUR) == []
    assert f"3 of 5 episodes of {ONE} gathered, the oldest 23 h 0 min of 24 h ago" in str(site.why)
    assert asked(site.tick(seconds=HOUR)) == [("collect", ONE)]


def test_three_and_two_episodes_are_five(site: Site) -> None:
    site.land(ONE, 3)
    assert site.tick() == []
    site.land(ONE, 2, role="policy")
    assert asked(site.tick()) == [("collect", ONE)]


def test_trials_are_judged_at_once_and_train_nothing(site: Site) -> None:
    site.land(ONE, 2, role="evaluation")
    assert site.go_on() == [("collect", ONE), ("refine", ONE), ("write_report", None)]
    assert set(site.toy.ran()) == of(ONE, "landed", "evaluation") | {"report"}
    assert str(site.why).startswith(f"done: 2 episodes of {ONE} to evaluate")


def test_trials_do_not_make_a_batch_of_episodes_that_wait(site: Site) -> None:
    site.land(ONE, 2)
    site.land(ONE, 50, role="evaluation")
    assert site.tick() == []
    assert f"2 of 5 episodes of {ONE} gathered" in str(site.why)


def test_rollouts_of_a_policy_leave_the_cloned_policy_as_it_is(site: Site) -> None:
    site.land(ONE, 5, role="policy")
    (request,) = site.tick()
    site.make([request])
    assert set(site.toy.ran()) == of(ONE, "landed", "rollout_store")
    assert {key.to_user_string() for key in request.asset_selection or ()} == {"landed", "rollout_store"}


def test_withdrawn_episodes_are_trained_out_at_once(site: Site) -> None:
    dataset = site.land(ONE, 5)
    site.toy.dvc("repro", f"landed@{ONE}")
    site.toy.ran()
    (site.paths.accepted / f"{dataset}.json").unlink()
    write_manifests([ONE, OTHER], site.paths)
    requests = site.tick()
    assert asked(requests) == [("collect", ONE)]
    assert f"5 episodes of {ONE} withdrawn" in requests[0].tags["world4rl/why"]
    site.make(requests)
    assert f"landed@{ONE}" in site.toy.ran()


def test_two_tasks_at_once_go_side_by_side_and_share_one_world_model(site: Site) -> None:
    site.land(ONE, 5)
    site.land(OTHER, 5)
    requests = site.tick()
    assert asked(requests) == [("collect", ONE), ("collect", OTHER)]
    site.make(requests[:1])
    assert site.tick() == requests[1:], "only what is left of it"
    site.make(requests[1:])
    assert site.go_on() == [("imagine", None), ("refine", ONE), ("refine", OTHER), ("write_report", None)]
    ran = site.toy.ran()
    assert set(ran) == of(ONE) | of(OTHER) | SHARED
    assert len(ran) == len(set(ran))


def test_a_batch_that_comes_while_another_is_under_way_joins_it(site: Site) -> None:
    site.land(ONE, 5)
    first = site.tick()
    site.begin(first[0])
    site.land(OTHER, 5)
    assert asked(site.tick()) == [("collect", OTHER)]


def test_fewer_than_a_batch_that_come_while_a_round_is_under_way_wait_for_the_next_one(site: Site) -> None:
    """Otherwise a lab that lands one now and then would train the world model again and again, and refine nothing."""
    site.land(ONE, 5)
    site.make(site.tick())
    dataset = site.land(ONE, 4)
    (site.paths.landed(ONE, "expert") / dataset).mkdir()
    (site.paths.landed(ONE, "expert") / dataset / "data.txt").write_text("as taking a dataset leaves it")
    assert site.go_on() == [("imagine", None), ("refine", ONE), ("write_report", None)]
    assert f"4 of 5 episodes of {ONE} gathered" in str(site.why)
    assert asked(site.tick(seconds=24 * HOUR)) == [("collect", ONE)]


def test_a_batch_that_is_complete_while_its_task_is_under_way_joins_the_round(site: Site) -> None:
    site.land(ONE, 5)
    site.make(site.tick())
    site.begin(site.tick()[0])
    site.land(ONE, 4)
    assert site.tick() == []
    site.land(ONE, 1)
    assert asked(site.tick()) == [("collect", ONE)]


def test_what_lands_after_somebody_asked_for_everything_waits(site: Site) -> None:
    site.land(ONE, 1)
    site.retrain()
    site.make(site.tick())
    site.land(OTHER, 1)
    assert asked(site.tick()) == [("imagine", None)]


def test_a_restart_between_request_and_run_neither_loses_nor_doubles(site: Site) -> None:
    site.land(ONE, 5)
    lost = site.tick(forget=True)
    again = site.tick(forget=True)
    assert [request.run_key for request in lost] == [request.run_key for request in again] != [None]
    site.begin(again[0])
    assert site.tick(forget=True) == [], "the cursor is lost, the run is not"
    assert f"collect of {ONE} is started (run " in str(site.why)


def test_a_cursor_that_is_lost_in_the_middle_of_a_round_loses_nothing(site: Site) -> None:
    site.land(ONE, 5)
    site.make(site.tick())
    site.cursor = None
    assert site.go_on() == [("imagine", None), ("refine", ONE), ("write_report", None)]


def test_runs_under_way_are_waited_for_without_looking_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.land(ONE, 5)
    site.begin(site.tick()[0])
    assert site.tick() == []
    first = site.why
    monkeypatch.setattr("pipelines.retraining.make_plan", lambda *_, **__: pytest.fail("nothing changed"))
    assert site.tick(seconds=HOUR) == []
    assert site.why == first


def test_a_stage_that_fails_is_tried_again_later_and_later_and_then_needs_a_person(site: Site) -> None:
    site.toy.wish(fail=["bc"])
    site.land(ONE, 5)
    requests = site.tick()
    assert site.execute(requests) == [False]
    for number, wait in enumerate(BACK_OFF, start=2):
        assert site.tick() == []
        assert f"attempt {number} of {len(BACK_OFF) + 1} in" in str(site.why)
        assert site.tick(seconds=wait / 2) == []
        requests = site.tick(seconds=wait / 2)
        assert asked(requests) == [("collect", ONE)]
        site.begin(requests[0], DagsterRunStatus.FAILURE)
    requests = site.tick(seconds=1000 * HOUR)
    assert asked(requests) == [("imagine", None)], "what does not need it goes on"
    site.make(requests)
    assert site.tick() == []
    assert f"collect of {ONE} needs a person: tried 4 times" in str(site.why)
    assert f"refined@{ONE} is held back: bc@{ONE} is missing and cannot be made" in str(site.why)


def test_a_person_starts_again_what_was_given_up(site: Site) -> None:
    site.land(ONE, 5)
    for wait in (0.0, *BACK_OFF):  # the first at once: the round is opened then, and runs are dated by the real clock
        site.begin(site.tick(seconds=wait)[0], DagsterRunStatus.FAILURE)
    assert ("collect", ONE) not in asked(site.tick(seconds=1000 * HOUR))
    site.retrain()
    assert ("collect", ONE) in asked(site.tick())


def test_a_run_that_somebody_ended_is_not_started_again_until_asked_for(site: Site) -> None:
    site.land(ONE, 5)
    site.begin(site.tick()[0], DagsterRunStatus.CANCELED)
    assert site.tick(seconds=1000 * HOUR) == []
    assert f"collect of {ONE} stays as it is: somebody ended run" in str(site.why)
    site.retrain()
    assert ("collect", ONE) in asked(site.tick())


def test_new_episodes_after_a_failure_are_another_undertaking(site: Site) -> None:
    site.land(ONE, 5)
    site.begin(site.tick()[0], DagsterRunStatus.FAILURE)
    assert site.tick() == []
    site.land(ONE, 1)
    assert asked(site.tick()) == [("collect", ONE)]


def test_attempts_go_on_after_somebody_deleted_the_run_of_one(site: Site) -> None:
    """Dagster starts no second run for a key: one that comes twice would be asked for at every tick, in vain."""
    site.land(ONE, 5)
    keys = set()
    for wait in (0.0, *BACK_OFF[:2]):
        (request,) = site.tick(seconds=wait)
        assert request.run_key not in keys
        keys.add(request.run_key)
        site.begin(request, DagsterRunStatus.FAILURE)
        site.instance.delete_run(site.instance.get_runs()[-1].run_id) if wait else None


def test_a_failing_check_stops_what_is_downstream_until_it_passes(site: Site) -> None:
    site.toy.set("gates/classifier_precision", 0.99)
    site.land(ONE, 5)
    site.make(site.tick())
    assert site.execute(site.tick()) == [False]
    ran = site.toy.ran()
    assert "success_classifier" in ran
    assert "fidelity" not in ran
    for seconds in (0.0, 1000 * HOUR):
        assert site.tick(seconds=seconds) == []
        assert f"refined@{ONE} is held back: check classifier_precision of success_classifier: precision 0.950" in str(
            site.why
        )
        assert "report is held back" in str(site.why)
    site.toy.set("gates/classifier_precision", 0.9)
    assert site.go_on() == [("imagine", None), ("refine", ONE), ("write_report", None)]
    assert set(site.toy.ran()) == of(ONE, "refined", "evaluation") | {"fidelity", "report"}


def test_a_policy_that_got_worse_is_reported_all_the_same(site: Site) -> None:
    site.toy.set("behaviour_cloning/width", 13)  # the toy's policy of that width gets worse
    site.toy.set("gates/refined_margin", 0.0)
    site.retrain()
    assert site.go_on()[-1] == ("write_report", None)
    assert str(site.why).startswith("done: ")


def test_what_is_made_from_the_evaluation_follows_it_by_itself(site: Site) -> None:
    attempts: list[str] = []

    @asset(
        partitions_def=site.definitions.resolve_asset_graph().get(AssetKey("evaluation")).partitions_def,
        deps=["evaluation"],
    )
    def notice(context):
        attempts.append(context.partition_key)
        assert len(attempts) > 1, "the first attempt fails"

    site.load([notice])
    site.land(ONE, 5)
    site.make(site.tick())
    site.make(site.tick())
    (request,) = site.tick()
    assert {key.to_user_string() for key in request.asset_selection or ()} == {"refined", "evaluation", "notice"}
    assert site.execute([request]) == [False]
    site.make(site.tick())  # the report does not need it
    assert site.tick() == []
    (request,) = site.tick(seconds=BACK_OFF[0])
    assert (request.partition_key, request.asset_selection) == (ONE, [AssetKey("notice")])
    assert site.execute([request]) == [True]
    assert site.tick() == []
    assert str(site.why).startswith("done: ")
    assert attempts == [ONE, ONE]


def test_a_challenger_that_a_check_does_not_pass_is_judged_all_the_same(site: Site) -> None:
    """So that a signed decision says why it is not champion."""
    site.toy.set("behaviour_cloning/width", 13)  # the toy's policy of that width gets worse
    site.toy.set("gates/refined_margin", 0.0)
    site.load(challenge=CHALLENGE)
    site.retrain()
    requests = site.tick()
    while asked(requests) != [("refine", ONE), ("refine", OTHER)]:
        site.make(requests)
        requests = site.tick()
    assert site.execute(requests) == [False, False], "the check is blocking"
    requests = site.tick()
    assert asked(requests) == [("promote", ONE), ("promote", OTHER), ("write_report", None)]
    assert {request.tags["dagster/priority"] for request in requests if request.job_name == "promote"} == {"40"}
    assert site.execute(requests) == [True] * 3
    assert site.tick() == []
    assert str(site.why).startswith("done: ")
    site.land(ONE, 5)
    assert asked(site.tick()) == [("collect", ONE)], "nobody is challenged before the new policy is there"


def test_what_follows_from_an_asset_that_is_no_stage_follows_too_and_once(site: Site) -> None:
    tasks = site.definitions.resolve_asset_graph().get(AssetKey("evaluation")).partitions_def

    @asset(partitions_def=tasks, deps=["evaluation"])
    def notice(): ...

    @asset(partitions_def=tasks, deps=[notice])
    def letter(): ...

    site.load([notice, letter])
    site.toy.set("evaluation/trials", 7)
    site.retrain()
    work = [("imagine", None), ("refine", ONE), ("refine", OTHER), ("write_report", None)]
    assert site.go_on(through_dagster=True) == work
    assert str(site.why).startswith("done: ")


def test_trials_go_before_training(site: Site) -> None:
    site.toy.set("evaluation/trials", 7)
    site.retrain()
    requests = site.tick()
    priorities = {request.job_name: int(request.tags.get("dagster/priority", "0")) for request in requests}
    assert priorities["refine"] == 40
    jobs = {
        job.name: job for job in (site.definitions.resolve_job_def(name) for name in ("collect", "imagine", "refine"))
    }
    assert all(int(job.tags["dagster/priority"]) < 40 for job in jobs.values())


def test_a_night_without_a_change_asks_for_nothing(site: Site) -> None:
    verdict = site.night()
    assert isinstance(verdict, SkipReason)
    assert verdict.skip_message == "nothing changed: 22 are up to date"


def test_a_night_asks_for_what_is_stale_and_for_no_more(site: Site) -> None:
    site.land(ONE, 1)
    site.toy.set("refinement/iterations", 99)
    assert site.tick() == [], "neither a change of parameters nor one episode is a batch"
    verdict = site.night()
    assert isinstance(verdict, RunRequest)
    assert verdict.run_key == "2027-01-01T02:00+00:00"
    site.retrain()
    asked_for = site.go_on()
    assert [job for job, _ in asked_for] == ["collect", "imagine", "refine", "refine", "write_report"]
    assert set(site.toy.ran()) == of(ONE) | of(OTHER, "refined", "evaluation") | SHARED
    assert isinstance(site.night(), SkipReason)


def test_a_night_where_nothing_was_ever_made_begins_nothing(site: Site) -> None:
    (site.toy.root / "dvc.lock").unlink()
    verdict = site.night()
    assert isinstance(verdict, SkipReason)
    assert "nothing was ever made here" in str(verdict.skip_message)


def test_a_look_at_the_plan_runs_nothing(site: Site) -> None:
    site.land(ONE, 1)
    job = site.definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(asset_selection=[AssetKey("plan")], instance=site.instance)
    (event,) = result.asset_materializations_for_node("plan")
    assert f"| landed@{ONE} | runs | manifest moved from " in event.metadata["plan"].value
    assert event.metadata["asked for by"].value == "nobody: this is a look"
    assert site.toy.ran() == []
    assert site.tick() == [], "nor is anything asked for"


def test_every_request_shows_the_plan(site: Site) -> None:
    site.land(ONE, 5)
    (request,) = site.tick()
    (event,) = site.events
    assert event.asset_key == AssetKey("plan")
    table = event.metadata["plan"].value
    assert f"| landed@{ONE} | runs | manifest moved from " in table
    assert f"| refined@{OTHER} | left | success_classifier will change; world_model will change |" in table
    assert f"landed@{ONE} runs: manifest moved from" in request.tags["world4rl/why"]


def test_turned_off_nothing_starts_but_what_a_person_asks_for(site: Site) -> None:
    site.toy.set("retraining/enabled", False)
    site.land(ONE, 5)
    assert site.tick() == []
    assert "retraining is off" in str(site.why)
    site.retrain()
    assert asked(site.tick()) == [("collect", ONE)]


def test_turned_off_in_the_middle_a_round_waits_until_it_is_turned_on(site: Site) -> None:
    site.land(ONE, 5)
    site.make(site.tick())
    site.toy.set("retraining/enabled", False)
    assert site.tick() == []
    assert "retraining is off" in str(site.why)
    verdict = site.night()
    assert isinstance(verdict, SkipReason)
    assert "retraining is off" in str(verdict.skip_message)
    site.toy.set("retraining/enabled", True)
    assert site.go_on() == [("imagine", None), ("refine", ONE), ("write_report", None)]


def test_what_is_edited_while_a_stage_runs_is_not_taken_for_what_it_ran_with(site: Site) -> None:
    """DVC hashes parameters when the command has ended."""
    site.toy.wish(sleep={"bc": 3})
    site.land(ONE, 5)
    begun = site.toy.root / ".runs" / "bc" / ONE / "pid"

    def edit() -> None:
        while not begun.exists():
            time.sleep(0.05)
        site.toy.set("behaviour_cloning/width", 13)

    editor = threading.Thread(target=edit)
    editor.start()
    assert site.execute(site.tick()) == [True]
    editor.join()
    assert site.toy.ran() == [f"{step}@{ONE}" for step in ("landed", "demo_store", "bc", "bc", "policy_rollouts")] + [
        f"rollout_store@{ONE}"
    ]
    assert "worse" in (site.toy.root / "models" / ONE / "bc" / "model.txt").read_text(), "a policy of that width is"


def test_a_task_that_the_code_location_does_not_know_is_named(site: Site) -> None:
    site.toy.set("tasks", [ONE, OTHER, "soccer-v3"])
    site.toy.set("task_parameters/soccer-v3", {"demonstrations": 2})
    assert site.tick() == []
    assert "params.yaml names soccer-v3, which Dagster does not know yet: reload the code location" in str(site.why)


def test_a_stage_that_somebody_runs_by_hand_is_waited_for(site: Site) -> None:
    site.toy.wish(sleep={"landed": 60})
    site.land(ONE, 5)
    (request,) = site.tick(forget=True)
    other = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "-s", f"landed@{ONE}"], cwd=site.toy.root, stdout=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 30
        while not (site.toy.root / "ran.txt").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        assert site.tick() == []
        assert f"collect of {ONE} waits: somebody is running a stage of it" in str(site.why)
        site.begin(request)
        assert site.tick() == []
        assert f"collect of {ONE} is started (run " in str(site.why), "where it is a run of ours, it is named"
        site.instance.delete_run(site.instance.get_runs()[0].run_id)
    finally:
        other.kill()
        other.wait()
    assert asked(site.tick()) == [("collect", ONE)], "who runs one by hand and gives up leaves no trace"
