"""The judgements that block what is built on an artefact."""

import pytest

from world4rl.config import Gates
from world4rl.errors import DataError
from world4rl.evaluation.gates import GATES, Verdict, judge
from world4rl.files import write_json
from world4rl.paths import Paths

TASK = "soccer-v3"


def judged(name, paths, **bounds) -> Verdict:
    (gate,) = [gate for gate in GATES if gate.name == name]
    return judge(gate, paths, Gates(**bounds), TASK)


@pytest.mark.parametrize(("accepted", "refused", "passed"), [(4, 1, True), (2, 2, False), (0, 0, False)])
def test_data_is_valid_when_most_of_it_is(tmp_path, accepted, refused, passed):
    paths = Paths(tmp_path)
    metrics = {"accepted": accepted, "quarantined": [{}] * refused}
    write_json(paths.store_report(TASK, "expert"), metrics)
    write_json(paths.store_report(TASK, "rollouts"), metrics)
    for name in ("demonstrations_valid", "rollouts_valid"):
        verdict = judged(name, paths)
        assert verdict.passed == passed
        assert f"{accepted} episodes accepted, {refused} quarantined" in verdict.reason


@pytest.mark.parametrize(("precision", "passed"), [(0.95, True), (0.9, True), (0.89, False), (None, False)])
def test_classifier_precision(tmp_path, precision, passed):
    paths = Paths(tmp_path)
    write_json(paths.classifier_metrics, {"precision": precision, "generated": {"precision": 0.5}})
    assert judged("classifier_precision", paths, classifier_precision=0.9).passed == passed


@pytest.mark.parametrize(("errors", "passed"), [({"5": 0.1, "25": 0.3}, True), ({"5": 0.1, "25": 0.5}, False)])
def test_the_world_model_must_win_at_every_horizon(tmp_path, errors, passed):
    paths = Paths(tmp_path)
    write_json(paths.fidelity_metrics, {"open_loop_mse": errors, "copy_last_mse": {"5": 0.2, "25": 0.4}})
    verdict = judged("beats_copying_the_last_frame", paths)
    assert verdict.passed == passed
    assert "at 25 steps, the worst" in verdict.reason


@pytest.mark.parametrize(("gain", "margin", "passed"), [(0.0, 0, True), (-1.0, 0, False), (-1.0, 2, True)])
def test_refined_may_lose_no_more_than_the_margin(tmp_path, gain, margin, passed):
    paths = Paths(tmp_path)
    write_json(paths.evaluation_metrics(TASK), {"gain_points": gain, "p_value": 0.5})
    assert judged("refined_not_worse_than_bc", paths, refined_margin=margin).passed == passed


@pytest.mark.parametrize("content", [None, "{}", "{"])
def test_without_metrics_nothing_is_judged(tmp_path, content):
    paths = Paths(tmp_path)
    if content is not None:
        paths.fidelity_metrics.parent.mkdir(parents=True)
        paths.fidelity_metrics.write_text(content)
    with pytest.raises(DataError, match="beats_copying_the_last_frame cannot be judged"):
        judged("beats_copying_the_last_frame", paths)
