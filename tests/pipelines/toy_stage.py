"""Stands in for every stage of the lineage: `python toy_stage.py STEP [TASK]` writes files of the same shape, fast.

Behaviour that a test wants to watch is asked for in `toy.yaml`, which is no dependency of any stage:
`sleep: {STEP: SECONDS}`, `fail: [STEP...]`, `train: {STEP: STEPS}`, `note: true` (a note about the run, as `world4rl`
leaves one).
"""

import fcntl
import hashlib
import json
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import yaml


def write(path, text):
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text if isinstance(text, str) else json.dumps(text))


def content(folder):
    """All that the upstream wrote, so that a change travels."""
    return "".join(
        path.read_text() for path in sorted(Path(folder).rglob("*")) if path.is_file() and path.suffix == ".txt"
    )


def train(state, inputs, steps):
    """Steps that each need the one before, going on where a killed process stopped; returns what the last one made."""
    saved, inputs = state / "chain.json", hashlib.sha256(inputs.encode()).hexdigest()
    chain = json.loads(saved.read_text()) if saved.exists() else {}
    if chain.get("inputs") != inputs:
        chain = {"inputs": inputs, "step": 0, "value": inputs}
    state.mkdir(parents=True, exist_ok=True)
    while chain["step"] < steps:
        time.sleep(0.05)
        chain["step"] += 1
        chain["value"] = hashlib.sha256(f"{chain['value']} {chain['step']}".encode()).hexdigest()
        fresh = state / "chain.fresh"
        fresh.write_text(json.dumps(chain))
        fresh.replace(saved)
    return chain["value"]


@contextmanager
def alone(name):
    """Notes in `overlaps.txt` when another process works on the same stage."""
    place = Path(".runs", "alone", name)
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with Path("overlaps.txt").open("a") as overlaps:
                overlaps.write(f"{name}\n")
        yield


def raw(task, source, text):
    episodes = [{"episode_index": 0, "seed": 1, "success": True, "split": "train"}]
    write(f"data/raw/{task}/{source}/meta/world4rl.json", {"episodes": episodes})
    write(f"data/raw/{task}/{source}/data.txt", text)
    write(f"reports/data/{task}/collect-{source}.json", {"seconds": time.time() % 1})
    write(f"reports/data/{task}/collect-{source}.json", {"seconds": time.time() % 1, "episodes": 1, "successful": 1})


def policy(task, name, text):
    write(f"models/{task}/{name}/model.txt", text)
    folder = {"bc": "bc", "refined": "refined"}[name]
    header = {"bc": "step,train_nll,validation_nll", "refined": "iteration,imagined_success,bc_kl,sigma"}[name]
    rows = {"bc": "0,1,1\n1,0.5,0.6", "refined": "0,0.5,0,0.1\n1,0.6,0.01,0.1"}[name]
    write(f"reports/{folder}/{task}.csv", f"{header}\n{rows}\n")
    write(f"reports/{folder}/{task}.json", {"seconds": time.time() % 1})


def evaluation(task):
    text = content(f"models/{task}")
    write(f"reports/evaluation/{task}/trials.txt", text)
    result = {"successes": 5, "trials": 10, "steps_mean": 20.0}
    write(
        f"reports/evaluation/{task}.json",
        {
            "seconds": time.time() % 1,
            "task": task,
            "bc": result,
            "refined": {**result, "successes": 6 if "worse" not in text else 4},
            "gain_points": 10.0 if "worse" not in text else -10.0,
            "gain_interval": [-5.0, 25.0],
            "p_value": 0.5,
            "imagined": {"bc": 0.5, "refined": 0.6, "trials": 10},
        },
    )


def run(step, task, params):
    if step == "demos":
        raw(task, "expert", json.dumps(params["task_parameters"][task]))
    elif step == "landed":
        for role, found in json.loads(Path(f"data/manifests/{task}.json").read_text())["roles"].items():
            write(f"data/landed/{task}/{role}/manifest.json", found)
            write(f"data/landed/{task}/{role}/root.txt", found["root"])
        figures = {"datasets": 0, "episodes": 0, "root": "0" * 64}
        write(f"reports/data/{task}/landed.json", dict.fromkeys(("expert", "policy"), figures))
    elif step == "demo_store":
        landed = content(f"data/landed/{task}/expert")
        write(f"data/store/{task}/expert/store.txt", content(f"data/raw/{task}/expert") + landed)
        write(
            f"reports/data/{task}/expert.json",
            {"seconds": time.time() % 1, "accepted": 3, "quarantined": [], "frames": 30},
        )
    elif step == "bc":
        policy(
            task,
            "bc",
            content(f"data/store/{task}/expert") + ("worse" if params["behaviour_cloning"]["width"] == 13 else ""),
        )
    elif step == "policy_rollouts":
        raw(task, "policy", content(f"models/{task}/bc"))
    elif step == "random_rollouts":
        raw(task, "random", "random")
    elif step == "rollout_store":
        for source in ("policy", "random"):
            landed = content(f"data/landed/{task}/{source}")
            write(f"data/store/{task}/{source}/store.txt", content(f"data/raw/{task}/{source}") + landed)
        refused = [{"episode": 4, "check": "finite", "reason": "NaN | in actions"}]
        write(
            f"reports/data/{task}/rollouts.json",
            {"seconds": time.time() % 1, "accepted": 3, "quarantined": refused, "frames": 30},
        )
    elif step == "world_model":
        noise = os.environ.get("TOY_NOISE", "")  # another machine, perhaps
        write("models/world_model/model.txt", content("data/store") + noise)
        write("reports/world_model.json", {"seconds": time.time() % 1, "loss": 1.0 + float(noise or 0)})
        write("reports/world_model.csv", "step,loss,learning_rate\n0,1,0.1\n1,0.5,0.1\n")
    elif step == "success_classifier":
        write("models/success_classifier/model.txt", content("models/world_model"))
        good = {"precision": 0.95, "recall": 0.9, "ece": 0.1}
        figures = {"seconds": time.time() % 1, **good, "generated": good}
        figures["thresholds"] = dict.fromkeys(params["tasks"], 0.5)
        figures["tasks"] = {task: {**good, "generated": good} for task in params["tasks"]}
        write("reports/success_classifier.json", figures)
        write("reports/success_classifier.csv", "step,loss\n0,1\n1,0.5\n")
    elif step == "fidelity":
        write("reports/fidelity/episodes.txt", content("models/success_classifier"))
        replay = dict.fromkeys(("expert_success_recall", "policy_success_recall", "policy_failure_recall"), 1.0)
        errors = {"open_loop_mse": {"5": 0.1}, "copy_last_mse": {"5": 0.2}, "replay": replay}
        write("reports/fidelity.json", {"seconds": time.time() % 1, **errors})
    elif step == "refined":
        policy(task, "refined", content(f"models/{task}/bc") + content("models/world_model"))
    elif step == "evaluation":
        evaluation(task)
    elif step == "report":
        tasks = {task: json.loads(Path(f"reports/evaluation/{task}.json").read_text()) for task in params["tasks"]}
        write("reports/report.html", "report")
        write("reports/summary.json", {"profile": "toy", "seconds": 1.0, "tasks": tasks})


def main():
    step, task = sys.argv[1], (sys.argv[2] if len(sys.argv) > 2 else None)
    params = yaml.safe_load(Path("params.yaml").read_text())
    wishes = yaml.safe_load(Path("toy.yaml").read_text()) if Path("toy.yaml").exists() else {}
    with Path("ran.txt").open("a") as file:  # what ran, in order, for the tests
        file.write(f"{step if task is None else f'{step}@{task}'}\n")
    state = Path(".runs", step, task or "all")
    if step in wishes.get("fail", ()):
        print("error: the toy was told to fail")
        return 1
    with alone(f"{step}@{task}"):
        return work(step, task, params, wishes, state)


def work(step, task, params, wishes, state):
    if seconds := wishes.get("sleep", {}).get(step):
        write(state / "step", f"{int((state / 'step').read_text()) + 1 if (state / 'step').exists() else 1}")
        write(state / "pid", str(os.getpid()))
        print(f"{step}: 1/2 steps, 50 %, 1 s left", flush=True)
        time.sleep(seconds)
    note = None
    if wishes.get("note"):
        from world4rl.paths import Paths  # some tenths of a second, which most tests need not spend
        from world4rl.provenance import notes

        note = notes.begin(" ".join([sys.executable, *sys.argv]), {"seed": 0, "device": "cpu"}, Path())
    run(step, task, params)
    if steps := wishes.get("train", {}).get(step):
        folder = Path("models", step) if task is None else Path("models", task, step)
        write(folder / "trained.txt", train(state, content(folder), steps))
        (state / "chain.json").unlink()
    if note is not None:
        metrics = yaml.safe_load(Path("dvc.yaml").read_text())["stages"][step]["metrics"][0]
        notes.end(note, Path(metrics.replace("${item.task}", task or "")), Paths())
    return 0


if __name__ == "__main__":
    sys.exit(main())
