"""One flipped byte, anywhere, or a file that is gone: the audit names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.lineage import MadeUp
from tests.audit.conftest import open_book
from world4rl.audit.verify import verify

KINDS = {
    "raw datasets": "data/raw/**/*",
    "landed datasets": "data/landed/**/frames.bin",
    "lists beside landed datasets": "data/landed/**/manifest.json",
    "stores": "data/store/**/*",
    "models": "models/**/*",
    "reports": "reports/**/*",
    "run records": "data/records/*.json",
    "decisions": "data/decisions/*.json",
    "signatures of decisions": "data/decisions/*.sig",
    "episode sets": "data/episodes/*.json",
    "acceptance records": "data/accepted/*.json",
    "manifests": "data/manifests/*.json",
    "places of signed models": "data/signatures/places/**/*.txt",
    "signatures of models": "data/signatures/*.sig",
    "trusted keys": "keys/*.pem",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    """A repository with one run of each stage: every file of it is current."""
    made = MadeUp(tmp_path_factory.mktemp("small") / "repository", ["push-v3"], collected=2)
    made.land(["push-v3"], 2, operator="ada", licence="CC-BY-4.0", consent="training")
    made.repro()
    made.deploy("arm-1", "push-v3", made.promote("push-v3"))
    made.withdraw(["0" * 64])
    return made


@pytest.mark.parametrize("kind", KINDS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=12)
@given(data=st.data())
def test_one_flipped_byte_names_the_file(small: MadeUp, kind: str, data: st.DataObject) -> None:
    root = small.paths.root
    files = sorted(path for path in root.glob(KINDS[kind]) if path.is_file())
    path: Path = data.draw(st.sampled_from(files))
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(flipped))
    try:
        answer = verify(*open_book(root))
        named = {fault.file for fault in answer.faults} | {
            str(root / one["file"]) for one in answer.data["differences"]
        }
        assert not answer.ok
        assert str(path) in named
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("run records", "decisions", "trusted keys")])
def test_a_file_that_is_gone_is_named(small: MadeUp, kind: str) -> None:
    """Of a chain only the lineage branch knows how it ended; without a key, the signatures that it made are named."""
    root = small.paths.root
    for path in sorted(path for path in root.glob(KINDS[kind]) if path.is_file()):
        content = path.read_bytes()
        path.unlink()
        try:
            book, history = open_book(root)
            answer = verify(book, history)
            named = {fault.file for fault in answer.faults} | {
                str(root / one["file"]) for one in answer.data["differences"]
            }
            assert str(path) in named
        finally:
            path.write_bytes(content)


def test_without_a_flip_all_is_well(small: MadeUp) -> None:
    assert verify(*open_book(small.paths.root)).ok
