"""`make setup` finds what a machine offers, says what it lacks, and has nothing to do the second time.

The real installation is what `make` has just done before it ran these tests; here the script meets machines that are
made of stand-ins.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("bash", "env", "dirname", "cat", "cksum", "df", "awk", "grep", "mkdir", "rm", "ln", "sleep")
UV = """#!/usr/bin/env bash
# Stands for uv: notes what it is asked, makes what `uv venv` makes, fails where the test says so.
echo "uv $*" >>"{log}"
case "$1 ${{2:-}}" in
  "venv "*) mkdir -p .venv/bin; ln -sf "{python}" .venv/bin/python
            printf '#!/bin/sh\\necho checked\\n' >.venv/bin/world4rl; {chmod} +x .venv/bin/world4rl ;;
  "pip sync") exit {sync} ;;
esac
"""


class Machine:
    """A folder with the project's set-up files, and a PATH on which only stand-ins lie."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.bin = folder / "bin"
        self.home = folder / "home"
        self.log = folder / "uv.log"
        for made in (self.bin, self.home, self.project / "scripts", self.project / "lerobot_policy_world4rl"):
            made.mkdir(parents=True)
        for name in (
            "requirements.lock",
            "pyproject.toml",
            "scripts/setup.sh",
            "lerobot_policy_world4rl/pyproject.toml",
        ):
            shutil.copy(ROOT / name, self.project / name)
        for package in ("world4rl", "assets", "pipelines"):
            (self.project / package).mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(str(shutil.which(tool)))

    def program(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def shim(self, name: str) -> None:
        """What pyenv puts on PATH for a version that is installed but not active."""
        self.program(self.bin / name, f"#!/bin/sh\necho 'pyenv: {name}: command not found' >&2\nexit 127\n")

    def python(self, path: Path, minor: int) -> Path:
        """A Python that says it is 3.`minor`."""
        real = sys.executable
        lie = f"import sys; sys.version_info = (3, {minor}, 0, 'final', 0); sys.executable = '{path}'"
        return self.program(path, f'#!/bin/sh\n[ "$1" = -c ] && exec {real} -c "{lie}\n$2"\nexec {real} "$@"\n')

    def uv(self, sync: int = 0) -> None:
        text = UV.format(log=self.log, python=sys.executable, chmod=shutil.which("chmod"), sync=sync)
        self.program(self.bin / "uv", text)

    def setup(self, *mode: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bin / "bash"), "scripts/setup.sh", *mode],
            cwd=self.project,
            env={"PATH": str(self.bin), "HOME": str(self.home), **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def asked(self) -> list[str]:
        return [line.split(" --")[0] for line in self.log.read_text().splitlines() if "--version" not in line]


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def assert_one_clear_error(result: subprocess.CompletedProcess[str], *expected: str) -> None:
    assert result.returncode != 0
    assert result.stderr.count("error: ") == 1, result.stderr
    assert "to do: " in result.stderr
    for text in expected:
        assert text in result.stderr


def test_it_sets_up_once_and_again_only_when_something_changed(machine):
    machine.python(machine.bin / "python3.12", 12)
    machine.uv()
    first = machine.setup()
    assert first.returncode == 0, first.stderr
    assert f"creating .venv with {machine.bin}/python3.12" in first.stdout
    assert machine.asked() == ["uv venv", "uv pip sync", "uv pip install"]
    second = machine.setup()
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    with (machine.project / "requirements.lock").open("a") as lock:
        lock.write("another==1.0\n")
    machine.log.unlink()
    third = machine.setup()
    assert third.returncode == 0
    assert machine.asked() == ["uv pip sync", "uv pip install"]


def test_an_environment_that_was_copied_elsewhere_is_made_anew(machine):
    machine.python(machine.bin / "python3.12", 12)
    machine.uv()
    assert machine.setup().returncode == 0
    machine.project = machine.project.rename(machine.project.with_name("moved"))
    assert "creating .venv" in machine.setup().stdout


@pytest.mark.parametrize("variable", ["PYENV_ROOT", "HOME"])
def test_it_finds_a_python_that_pyenv_has_but_has_not_activated(machine, variable):
    for name in ("python3.12", "python3.13", "python3"):
        machine.shim(name)
    machine.uv()
    root = machine.home / ("elsewhere" if variable == "PYENV_ROOT" else ".pyenv")
    found = machine.python(root / "versions" / "3.12.1" / "bin" / "python", 12)
    machine.python(root / "versions" / "3.13.0" / "bin" / "python", 13)
    result = machine.setup(**({"PYENV_ROOT": str(root)} if variable == "PYENV_ROOT" else {}))
    assert f"creating .venv with {found}" in result.stdout, result.stderr


def test_it_takes_313_where_there_is_no_312(machine):
    machine.python(machine.bin / "python3", 11)
    found = machine.python(machine.bin / "python3.13", 13)
    machine.uv()
    assert f"creating .venv with {found}" in machine.setup().stdout


def test_it_says_what_to_install_where_there_is_no_python(machine):
    machine.shim("python3.12")
    machine.python(machine.bin / "python3", 11)
    assert_one_clear_error(
        machine.setup(), "no Python 3.12 or 3.13", "apt-get install python3.12", "pyenv install 3.12"
    )


def test_a_named_python_must_fit(machine):
    named = machine.python(machine.home / "python", 10)
    assert_one_clear_error(machine.setup(PYTHON=str(named)), str(named), "unset PYTHON")


def test_without_uv_and_without_venv_it_says_what_to_install(machine):
    machine.program(
        machine.bin / "python3.12", f'#!/bin/sh\n[ "$1" = -c ] && echo "12 {machine.bin}/python3.12" || exit 1\n'
    )
    assert_one_clear_error(machine.setup(), "cannot make a virtual environment", "python3-venv")


def test_a_failed_installation_is_no_installation(machine):
    machine.python(machine.bin / "python3.12", 12)
    machine.uv(sync=2)
    for _ in range(2):
        assert_one_clear_error(machine.setup(), "could not install requirements.lock")
    assert machine.asked().count("uv pip sync") == 2
    machine.uv()
    assert machine.setup().returncode == 0


def test_too_little_disk_space_is_said_before_anything_is_downloaded(machine):
    machine.python(machine.bin / "python3.12", 12)
    machine.uv()
    (machine.bin / "df").unlink()
    machine.program(machine.bin / "df", "#!/bin/sh\necho head\necho '/dev/x 100 50 3000000 50% /'\n")
    assert_one_clear_error(machine.setup(), "only 3 GB free", "free space")
    assert not machine.log.exists()


APT = """#!/bin/sh
# Stands for apt-get: notes what it is asked, and installs it.
echo "apt-get $*" >>"{log}"
[ "$1" = install ] || exit {update}
for name in "$@"; do
  case $name in
    postgresql) for program in initdb postgres; do {ln} -s {true} "{bin}/$program"; done ;;
    chromium) {ln} -s {true} "{bin}/chromium" ;;
  esac
done
"""


@pytest.fixture
def bare(machine):
    """A machine without the programs of the tests; Debian's own place for PostgreSQL is looked into all the same."""
    for name in ("initdb", "postgres", "chromium"):
        machine.program(machine.home / "programs" / name, "#!/bin/sh\n")
    machine.apt = lambda update=0: machine.program(
        machine.bin / "apt-get",
        APT.format(
            log=machine.log, bin=machine.home / "new", ln=shutil.which("ln"), true=shutil.which("true"), update=update
        ),
    )
    (machine.home / "new").mkdir()
    machine.here = {"POSTGRES_BIN": str(machine.home / "programs"), "CHROMIUM": str(machine.home / "programs/chromium")}
    machine.later = {"POSTGRES_BIN": str(machine.home / "new"), "CHROMIUM": str(machine.home / "new" / "chromium")}
    return machine


def test_programs_of_the_tests_that_are_there_are_left_alone(bare):
    bare.apt()
    result = bare.setup("tests", **bare.here)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert not bare.log.exists()
    bare.program(bare.bin / "chromium", "#!/bin/sh\n")
    for name in ("initdb", "postgres"):
        bare.program(bare.bin / name, "#!/bin/sh\n")
    assert bare.setup("tests").returncode == 0  # on PATH
    assert not bare.log.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may install without sudo")
def test_missing_programs_of_the_tests_are_installed_once(bare):
    bare.apt()
    result = bare.setup("tests", **bare.later)
    assert result.returncode == 0, result.stderr
    assert "installing postgresql chromium with apt-get" in result.stdout
    asked = bare.log.read_text().splitlines()
    assert [line.split()[1] for line in asked] == ["update", "install"]
    assert asked[1].endswith("postgresql chromium")
    assert bare.setup("tests", **bare.later).stdout == ""
    bare.log.unlink()
    (bare.home / "new" / "chromium").unlink()
    assert bare.setup("tests", **bare.later).returncode == 0
    assert bare.log.read_text().splitlines()[1].endswith("--no-install-recommends chromium")


@pytest.mark.parametrize("apt", [False, True])
def test_where_nothing_can_be_installed_it_says_what_to_install(bare, apt):
    if apt:
        bare.apt(update=100)
    result = bare.setup("tests", **bare.later)
    assert_one_clear_error(result, "postgresql chromium", "apt-get install postgresql chromium", "POSTGRES_BIN")


def test_make_lists_its_targets():
    make = shutil.which("make")
    assert make
    listed = subprocess.run([make, "help"], cwd=ROOT, capture_output=True, text=True, env=os.environ, check=True).stdout
    targets = {line.split()[0] for line in listed.splitlines()}
    assert {"setup", "demo", "test", "ui", "lint", "typecheck", "lock", "clean"} <= targets
    assert {"benchmark-demo", "benchmark-windows", "params"} <= targets
