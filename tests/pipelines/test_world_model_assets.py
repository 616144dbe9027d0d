"""What a person sees on the pages of the world model's assets."""

from assets.world_model import LAYER
from world4rl.files import write_json, write_text
from world4rl.paths import Paths

BUTTON, FAUCET = "button-press-topdown-v3", "faucet-open-v3"


def test_the_classifiers_page_shows_every_tasks_threshold_and_figures(tmp_path):
    paths = Paths(tmp_path)
    recognised = {"precision": 0.95, "recall": 0.9}
    write_json(
        paths.classifier_metrics,
        {
            **recognised,
            "ece": 0.1,
            "generated": {**recognised, "ece": 0.2},
            "thresholds": {BUTTON: 0.62, FAUCET: 0.34},
            "tasks": {
                BUTTON: {**recognised, "generated": {"precision": 0.8, "recall": 0.7}},
                FAUCET: {"precision": None, "recall": 0.0, "generated": recognised},
            },
        },
    )
    write_text(paths.classifier_curve, "step,loss\n1,0.5\n")
    (asset,) = [asset for asset in LAYER.assets if asset.step == "success_classifier"]
    shown = asset.show(paths, None)
    assert shown[f"threshold of {BUTTON}"] == 0.62
    assert shown[f"threshold of {FAUCET}"] == 0.34
    table = shown["task by task"].value
    for row in (
        f"| {BUTTON} | 0.62 | real | 95.0 % | 90.0 % |",
        f"| {BUTTON} | 0.62 | generated | 80.0 % | 70.0 % |",
        f"| {FAUCET} | 0.34 | real | – | 0.0 % |",
    ):
        assert row in table


def test_frames_of_episodes_are_not_put_into_dagsters_event_log_where_no_withdrawal_reaches_them(tmp_path):
    paths = Paths(tmp_path)
    replay = dict.fromkeys(("expert_success_recall", "policy_success_recall", "policy_failure_recall"), 1.0)
    write_json(paths.fidelity_metrics, {"open_loop_mse": {}, "copy_last_mse": {}, "replay": replay})
    strip = paths.fidelity / "strip.png"
    write_text(strip, "somebody")
    (asset,) = [asset for asset in LAYER.assets if asset.step == "fidelity"]
    shown = asset.show(paths, None)
    assert shown["film strip strip"].value == "![strip](/files/reports/fidelity/strip.png)"
    assert not any("data:image" in str(entry) for entry in shown.values())
