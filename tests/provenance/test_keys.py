"""The signing key: made once, its owner's alone, and trusted where it signs."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from world4rl import progress
from world4rl.errors import ConfigError, DataError, MachineError
from world4rl.paths import Paths
from world4rl.provenance import keys


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    private = tmp_path / "user" / "key.pem"
    monkeypatch.setenv("WORLD4RL_SIGNING_KEY", str(private))
    return private


def test_the_first_use_makes_a_key_that_the_repository_trusts(tmp_path: Path, private: Path) -> None:
    paths = Paths(tmp_path / "repository")
    with ThreadPoolExecutor(8) as pool:  # lanes that all want to sign
        assert set(pool.map(lambda _: keys.ensure_key(paths), range(8))) == {private}
    (public,) = paths.trusted_keys.glob("*.pem")
    assert keys.verify(b"said", keys.sign(b"said", private), paths.trusted_keys) == public.stem
    assert private.stat().st_mode & 0o077 == 0


def test_another_repository_gets_to_know_the_same_key(tmp_path: Path, private: Path) -> None:
    one, other = Paths(tmp_path / "one"), Paths(tmp_path / "other")
    keys.ensure_key(one)
    keys.ensure_key(other)
    signature = keys.sign(b"said", private)
    assert keys.verify(b"said", signature, one.trusted_keys) == keys.verify(b"said", signature, other.trusted_keys)


def test_a_new_key_does_not_take_the_place_of_the_old_one(tmp_path: Path, private: Path) -> None:
    paths = Paths(tmp_path / "repository")
    keys.ensure_key(paths)
    before = keys.sign(b"said", private)
    private.unlink()
    keys.ensure_key(paths)
    assert len(list(paths.trusted_keys.glob("*.pem"))) == 2
    keys.verify(b"said", before, paths.trusted_keys)
    keys.verify(b"said", keys.sign(b"said", private), paths.trusted_keys)


def test_what_is_not_ours_is_not_trusted(tmp_path: Path, private: Path) -> None:
    paths = Paths(tmp_path / "repository")
    signature = keys.sign(b"said", keys.ensure_key(paths))
    with pytest.raises(DataError, match="no trusted key"):
        keys.verify(b"something else", signature, paths.trusted_keys)


def test_a_key_that_cannot_be_used_or_made_is_one_clear_error(tmp_path: Path, private: Path) -> None:
    private.parent.mkdir()
    private.write_text("no key")
    with pytest.raises(ConfigError, match="no private ECDSA key"):
        keys.ensure_key(Paths(tmp_path / "repository"))
    shutil.rmtree(private.parent)
    private.parent.write_text("a file where the folder should be")
    for command in (keys.ensure_key, lambda paths: keys.introduce(paths, "ada")):
        with pytest.raises(MachineError, match="WORLD4RL_SIGNING_KEY") as caught:
            command(Paths(tmp_path / "repository"))
        assert str(caught.value.where).startswith(str(private.parent))


def test_a_key_where_nothing_can_be_written_signs_all_the_same(
    tmp_path: Path, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(tmp_path / "repository")
    keys.ensure_key(paths)
    private.with_suffix(".lock").unlink()
    private.with_suffix(".lock").mkdir()  # nobody can write there, the superuser of a container neither
    assert keys.ensure_key(paths) == private
    shutil.rmtree(paths.trusted_keys)
    with pytest.raises(MachineError, match="no key to sign with"):
        keys.ensure_key(paths)


def test_who_is_trusted_anew_is_told(tmp_path: Path, private: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = Paths(tmp_path / "repository")
    keys.ensure_key(paths)
    (public,) = paths.trusted_keys.glob("*.pem")
    public.unlink()
    with progress.session("rollback"):
        keys.ensure_key(paths)
    assert f"trusts {private} from now on; commit {public}" in capsys.readouterr().err


def test_a_key_that_was_half_written_leaves_nothing_behind(
    tmp_path: Path, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.fsync", cut)
        keys.ensure_key(Paths(tmp_path / "repository"))
    assert not private.exists()
    keys.sign(b"said", keys.ensure_key(Paths(tmp_path / "repository")))
