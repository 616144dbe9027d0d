"""The command line: quick to answer, clear when something is wrong, and quiet about what nobody asked."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from world4rl import cli, runner
from world4rl.config import dump_params, load_params, load_profile
from world4rl.errors import ConfigError, World4RLError
from world4rl.stages import STAGES, Stage

HEAVY = (
    "torch",
    "lerobot",
    "metaworld",
    "mujoco",
    "dagster",
    "dvc",
    "matplotlib",
    "zarr",
    "pandas",
    "numpy",
    "pydantic",
)


def world4rl(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "world4rl", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "100"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "params.yaml").write_text(dump_params(load_profile("ci")), encoding="utf-8")
    return tmp_path


def files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir())


def test_help_names_every_stage_and_imports_nothing_heavy():
    script = f"""
import sys
from world4rl.cli import main
sys.argv = ["world4rl", "--help"]
try:
    main()
finally:
    print("HEAVY", [name for name in {HEAVY!r} if name in sys.modules])
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=os.environ | {"COLUMNS": "100"}
    )
    assert result.returncode == 0
    assert "HEAVY []" in result.stdout
    for command in (*STAGES, "params", "check", "ingest"):
        assert f" {command} " in result.stdout


def test_where_only_the_method_is_installed_no_command_needs_more():
    script = """
import sys
sys.modules["dvc"] = None  # as if it were not installed
from world4rl.cli import main
sys.argv = ["world4rl", "--help"]
main()
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    for command in ("plan", "record", "lineage", "reproduce", "withdraw"):
        assert f" {command} " not in result.stdout
        assert f" {command} " in world4rl("--help").stdout
    assert " audit " in result.stdout


def test_the_console_script_is_installed():
    result = subprocess.run([Path(sys.executable).with_name("world4rl"), "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "diffusion world model" in result.stdout


def test_params_prints_or_writes_a_profile(tmp_path):
    printed = world4rl("params", "--profile", "paper")
    assert printed.stdout == dump_params(load_profile("paper"))
    assert world4rl("params", "--profile", "ci", "--out", tmp_path / "p.yaml").stdout == ""
    assert load_params(tmp_path / "p.yaml") == load_profile("ci")


def assert_one_clear_error(result: subprocess.CompletedProcess[str], *expected: str) -> None:
    assert result.returncode == 1, result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("error:") == 1
    assert "to do: " in result.stderr
    assert "Traceback" not in result.stderr
    for text in expected:
        assert text in result.stderr


@pytest.mark.parametrize("command", [("check",), ("collect-demos", "--task", "faucet-open-v3"), ("report",)])
def test_a_typo_in_the_parameters_is_one_clear_error(root, command):
    file = root / "params.yaml"
    file.write_text(file.read_text().replace("learning_rate:", "learnig_rate:", 1), encoding="utf-8")
    assert_one_clear_error(world4rl(*command, "--root", root), "learnig_rate: unknown key", str(file))
    assert files(root) == ["params.yaml"]


def test_outside_the_repository_it_says_where_to_run(tmp_path):
    assert_one_clear_error(world4rl("check", cwd=tmp_path), "no parameter file", "root folder")


def test_an_unknown_task_and_an_unknown_profile_are_one_clear_error(root):
    assert_one_clear_error(world4rl("refine", "--task", "door-lok-v3", "--root", root), "door-lok-v3", "faucet-open-v3")
    assert_one_clear_error(world4rl("params", "--profile", "dmeo"), "dmeo", "paper")


@pytest.mark.parametrize("pair", ["action", "=x", "action=", "a=x --map a=y"])
def test_a_mapping_that_cannot_be_read_is_one_clear_error(tmp_path, pair):
    result = world4rl("ingest", tmp_path, "--out", tmp_path / "store", "--map", *pair.split())
    assert_one_clear_error(result, "--map", "NAME=FEATURE")


def test_check_describes_a_machine_that_can_do_it(root):
    result = world4rl("check", "--root", root)
    assert result.returncode == 0, result.stderr
    assert "is valid (profile ci" in result.stdout
    assert "draws" in result.stdout


def test_check_names_the_remedy_where_nothing_draws(root):
    assert_one_clear_error(world4rl("check", "--root", root, MUJOCO_GL="bogus"), "MUJOCO_GL=bogus", "unset MUJOCO_GL")


@pytest.mark.parametrize("command", [name for name in STAGES if name not in ("collect-demos", "collect-random")])
def test_a_stage_whose_inputs_are_missing_says_so_and_writes_nothing(root, command):
    task = "faucet-open-v3" if STAGES[command].per_task else None
    with pytest.raises(World4RLError) as caught:
        runner.run_stage(command, root, Path("params.yaml"), task)
    assert caught.value.where
    assert caught.value.remedy
    assert [name for name in files(root) if not name.startswith(".landing")] == ["params.yaml"]


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Registers a stage made of the given function body."""

    def register(body: str, **settings: object) -> Stage:
        head = "import time\nfrom world4rl import errors, progress\ndef work(params, paths, task):\n"
        source = head + textwrap.indent(textwrap.dedent(body), "    ")
        (tmp_path / "toy_stage.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "toy_stage", raising=False)
        toy = Stage(
            "toy",
            "A toy.",
            "toy_stage:work",
            per_task=True,
            sections=("seed", "store"),
            metrics="reports/toy.json",
            **settings,
        )
        monkeypatch.setitem(STAGES, "toy", toy)
        return toy

    yield register
    sys.modules.pop("toy_stage", None)


def run_toy(root: Path) -> None:
    runner.run_stage("toy", root, Path("params.yaml"), "faucet-open-v3")


def test_a_stage_gets_its_parameters_its_places_and_its_task(root, stage, capsys):
    stage("print(type(params.store).__name__, paths.params.name, task, params.device, params.threads)")
    run_toy(root)
    assert capsys.readouterr().out.split() == ["Store", "params.yaml", "faucet-open-v3", "auto", "0"]


def test_a_stage_cannot_read_what_it_does_not_declare(root, stage):
    stage("params.refinement")
    with pytest.raises(RuntimeError, match=r"params\.refinement without declaring it"):
        run_toy(root)


def test_a_stage_sees_only_its_own_task():
    params = load_profile("demo")
    visible = runner.visible_params(params, STAGES["collect-demos"], params.tasks[1])
    assert list(visible.task_parameters) == [params.tasks[1]]
    assert visible.simulation == params.simulation
    with pytest.raises(RuntimeError, match="without declaring"):
        _ = visible.tasks


def test_a_stage_begins_with_the_same_random_numbers_each_time(root, stage):
    stage(
        "import numpy, random, torch; "
        "(paths.root / 'drawn').write_text(repr((random.random(), numpy.random.random(), torch.rand(1).item())))"
    )
    drawn = []
    for disturbance in (1, 2):
        np.random.seed(disturbance)  # noqa: NPY002  the generator that libraries draw from
        torch.manual_seed(disturbance)
        run_toy(root)
        drawn.append((root / "drawn").read_text())
    assert drawn[0] == drawn[1]


def test_a_stage_says_when_it_began_how_it_went_and_how_long_it_took(root, stage, capsys):
    stage(
        """
        with progress.track("count", total=3) as bar:
            for _ in range(3):
                bar.advance(loss=0.5)
        progress.metrics({"accuracy": 0.75})
        """
    )
    run_toy(root)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "toy faucet-open-v3: started"
    assert "count: 3/3 steps, in 0.0 s, loss 0.5" in lines
    assert "  accuracy 0.75" in lines
    assert lines[-1].startswith("toy faucet-open-v3: done in ")


def test_too_little_disk_space_is_said_before_the_work_begins(root, stage, monkeypatch):
    stage("(paths.root / 'begun').touch()")
    monkeypatch.setattr(runner, "FREE_GIGABYTES", 1e9)
    with pytest.raises(World4RLError, match="GB free"):
        run_toy(root)
    assert not (root / "begun").exists()


def test_a_task_that_the_parameters_lack_is_refused(root, stage):
    stage("pass")
    with pytest.raises(ConfigError, match="no task 'reach-v3'"):
        runner.run_stage("toy", root, Path("params.yaml"), "reach-v3")


PROGRAM = """
import sys
from world4rl.stages import STAGES, Stage
STAGES["refine"] = Stage("refine", "A toy.", "toy_stage:work", per_task=True, sections=(), metrics="reports/toy.json")
from world4rl.cli import main
sys.argv = ["world4rl", "refine", "--task", "faucet-open-v3"]
main()
"""


def start(root: Path) -> subprocess.Popen[str]:
    where = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": where, "PYTHONHASHSEED": "0"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores Ctrl-C, and so would what the tests of such a job start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (
            "raise errors.DataError('torn', where='a.parquet', remedy='mend it')",
            1,
            ["error: torn\n  where: a.parquet\n"],
        ),
        ("raise OSError(28, 'No space left on device', 'x.bin')", 1, ["error: the disk is full\n  where: x.bin\n"]),
        ("raise RuntimeError('Disk: No space left on device')", 1, ["error: the disk is full\n  to do: free"]),
        ("raise KeyError('a bug')", 1, ["Traceback", "KeyError: 'a bug'"]),
        ("pass", 0, ["refine faucet-open-v3: done"]),
    ],
)
def test_how_a_stage_ends_is_its_exit_status(root, stage, body, status, expected):
    stage(body)
    process = start(root)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == status
    for text in expected:
        assert text in error
    if "Traceback" not in expected:
        assert "Traceback" not in error
        if status:
            assert "refine faucet-open-v3: failed after" in error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stage_that_is_told_to_stop_clears_up_and_says_so(root, stage, number):
    stage(
        """
        from world4rl.files import replacing
        with replacing(paths.root / "model") as fresh:
            fresh.write_text("half")
            print("working", flush=True)
            time.sleep(60)
        """
    )
    process = start(root)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(number)
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 128 + number
    assert "refine faucet-open-v3: interrupted after" in error
    assert "Traceback" not in error
    assert not [name for name in files(root) if "model" in name]


@pytest.mark.parametrize("own", [None, "glibc.malloc.check=0"])
def test_stages_run_with_a_fixed_hash_seed_and_keep_their_memory(own):
    """LeRobot writes the keys of stats.json in the order of a set of strings."""
    script = """
import os
from world4rl import cli
os.execv = lambda program, arguments: print(*(os.environ[n] for n in ("PYTHONHASHSEED", "GLIBC_TUNABLES")), arguments)
cli._restart_with_environment()
"""
    environment = {n: v for n, v in os.environ.items() if n not in ("PYTHONHASHSEED", "GLIBC_TUNABLES")}
    result = subprocess.run(
        [sys.executable, "-c", script, "report", "--root", "x"],
        env=environment if own is None else environment | {"GLIBC_TUNABLES": own},
        capture_output=True,
        text=True,
    )
    arguments = [sys.executable, "-m", "world4rl", "report", "--root", "x"]
    assert result.stdout.strip() == f"0 {own or cli.MALLOC} {arguments}", result.stderr
