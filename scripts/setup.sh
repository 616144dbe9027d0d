#!/usr/bin/env bash
# Makes .venv hold exactly requirements.lock and this project, and checks that the machine can draw.
# `make` runs it before everything else: when nothing changed since the last time it ends at once.
# PYTHON=/path/to/python chooses an interpreter. `setup.sh lock` first resolves requirements.in anew.
# `setup.sh tests` does something else: it makes sure of the programs that only the tests start, PostgreSQL's server and
# a browser. POSTGRES_BIN=/folder and CHROMIUM=/path/to/program choose them.
set -euo pipefail
cd "$(dirname "$0")/.."

ENVIRONMENT=.venv
TOOLS=.tools # a private uv, where the machine has none
UV_VERSION=0.9.0
STAMP=$ENVIRONMENT/world4rl-setup
FREE_KB=9000000 # the environment takes 6.3 GB; uv's cache holds the same files on the same disk

fail() {
  printf 'error: %s\n  to do: %s\n' "$1" "$2" >&2
  exit 1
}

say() { printf 'setup: %s\n' "$*"; }

# What an installed environment depends on: when it changes, the environment is brought up to date.
fingerprint() {
  cat requirements.lock pyproject.toml lerobot_policy_world4rl/pyproject.toml scripts/setup.sh | cksum
  pwd
}

# An environment works only where it was made: its programs name its path.
moved() { [ -e "$STAMP" ] && ! grep -qxF "$(pwd)" "$STAMP"; }

# Prints "MINOR PATH" when $1 is a Python that runs and is recent enough. A name on PATH proves nothing: pyenv's
# shims stand there for every version and fail for those that are not active.
probe() {
  "$1" -c 'import sys
if sys.version_info[:2] in ((3, 12), (3, 13)): print(sys.version_info[1], sys.executable)' 2>/dev/null || true
}

candidates() {
  local name root
  for name in python3.12 python3.13 python3 python; do type -ap "$name" || true; done
  for root in "${PYENV_ROOT:-}" "${HOME:-}/.pyenv"; do
    [ -z "$root" ] || printf '%s\n' "$root"/versions/3.1[23]*/bin/python
  done
  printf '%s\n' "${HOME:-}"/.local/share/uv/python/cpython-3.1[23]*/bin/python
}

find_python() {
  local found="" candidate answer
  if [ -n "${PYTHON:-}" ]; then
    found=$(probe "$PYTHON")
    [ -n "$found" ] || fail "PYTHON=$PYTHON is not a Python 3.12 or 3.13 that runs" "unset PYTHON or name another one"
    printf '%s\n' "${found#* }"
    return
  fi
  while IFS= read -r candidate; do
    [ -x "$candidate" ] || continue
    answer=$(probe "$candidate")
    case $answer in
      12\ *)
        printf '%s\n' "${answer#* }"
        return
        ;;
      13\ *) [ -n "$found" ] || found=${answer#* } ;;
    esac
  done < <(candidates)
  [ -n "$found" ] || fail "no Python 3.12 or 3.13 on PATH or under pyenv" \
    "install one (Debian or Ubuntu: apt-get install python3.12 python3.12-venv; macOS: brew install python@3.12; pyenv: pyenv install 3.12) or give its path: make PYTHON=/path/to/python3.12"
  printf '%s\n' "$found"
}

# A uv that runs: the user's, or one installed with pip into a folder of our own.
find_uv() {
  if uv --version >/dev/null 2>&1; then
    echo uv
    return
  fi
  if ! "$TOOLS/bin/uv" --version >/dev/null 2>&1; then
    rm -rf "$TOOLS"
    "$1" -m venv "$TOOLS" >/dev/null 2>&1 || fail "$1 cannot make a virtual environment" \
      "install its venv package (Debian or Ubuntu: apt-get install python3-venv) or install uv"
    "$TOOLS/bin/python" -m pip install --quiet --disable-pip-version-check "uv>=$UV_VERSION" >&2 ||
      fail "pip could not install uv" "check the network (see pip's message above) or install uv yourself"
  fi
  echo "$TOOLS/bin/uv"
}

has_postgres() {
  if [ -n "${POSTGRES_BIN:-}" ]; then
    [ -x "$POSTGRES_BIN/initdb" ] && [ -x "$POSTGRES_BIN/postgres" ]
  else
    { type -P initdb && type -P postgres; } >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
  fi
}

has_browser() {
  if [ -n "${CHROMIUM:-}" ]; then
    [ -x "$CHROMIUM" ]
  else
    [ -n "$(type -P chromium chromium-browser google-chrome google-chrome-stable)" ]
  fi
}

# Debian and its relatives let us install what is missing, where we are root or may become it without being asked.
install_programs() {
  local become=()
  [ "$EUID" = 0 ] || become=(sudo -n)
  type -P apt-get >/dev/null && { [ "$EUID" = 0 ] || sudo -n true 2>/dev/null; } || return 1
  say "installing $* with apt-get, for the tests"
  "${become[@]}" apt-get update -qq >&2 &&
    "${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

if [ "${1:-}" = tests ]; then
  missing=()
  has_postgres || missing+=(postgresql)
  has_browser || missing+=(chromium)
  if [ ${#missing[@]} -gt 0 ] && ! { install_programs "${missing[@]}" && has_postgres && has_browser; }; then
    fail "the tests need programs that are not here: ${missing[*]}" \
      "install them (Debian: apt-get install ${missing[*]}) or say where they are: POSTGRES_BIN=/folder CHROMIUM=/path/to/program; \`make test\` does without"
  fi
  exit 0
fi

if [ "${1:-}" != lock ] && [ -x "$ENVIRONMENT/bin/python" ] &&
  [ "$(cat "$STAMP" 2>/dev/null)" = "$(fingerprint)" ]; then
  exit 0
fi

started=$SECONDS
if [ -z "$(probe "$ENVIRONMENT/bin/python")" ] || moved || [ -n "${PYTHON:-}" ]; then
  free=$(df -Pk . | awk 'NR == 2 { print $4 }')
  [ "$free" -ge "$FREE_KB" ] || fail "only $((free / 1000000)) GB free in $(pwd), $((FREE_KB / 1000000)) GB needed" \
    "free space on this disk or clone the repository to another one"
  python=$(find_python)
  say "creating $ENVIRONMENT with $python"
  uv=$(find_uv "$python")
  "$uv" venv --quiet --clear --python "$python" "$ENVIRONMENT"
else
  uv=$(find_uv "$ENVIRONMENT/bin/python")
fi
rm -f "$STAMP"

if [ "${1:-}" = lock ]; then
  # For every platform at once, and without the addresses of anyone's package index.
  "$uv" pip compile --quiet --universal --python-version 3.12 --no-header --no-annotate --no-emit-index-url \
    requirements.in -o requirements.lock
fi

say "installing $(grep -c '==' requirements.lock) pinned packages"
"$uv" pip sync --quiet --python "$ENVIRONMENT/bin/python" --compile-bytecode requirements.lock ||
  fail "uv could not install requirements.lock" "see its message above: most often the network or the disk"
"$uv" pip install --quiet --python "$ENVIRONMENT/bin/python" --no-deps --no-build-isolation --reinstall \
  -e . -e ./lerobot_policy_world4rl
"$ENVIRONMENT/bin/python" -m compileall -q world4rl assets pipelines lerobot_policy_world4rl

say "drawing one frame"
"$ENVIRONMENT/bin/world4rl" check --root .
"$ENVIRONMENT/bin/world4rl" manifests --root . >/dev/null # `dvc repro` asks for them before anything has landed
fingerprint >"$STAMP"
say "done in $((SECONDS - started)) s"
