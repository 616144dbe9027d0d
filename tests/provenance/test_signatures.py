"""Models are verified before they are loaded: what was signed must still be it, and by a key that is trusted."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from world4rl.errors import DataError
from world4rl.paths import Paths
from world4rl.provenance import keys, signatures
from world4rl.provenance.digests import digest_folder


@pytest.fixture(autouse=True)
def usual_policy() -> Iterator[None]:
    yield
    signatures.use("when-present")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "repository")


@pytest.fixture
def private(tmp_path: Path, paths: Paths) -> Path:
    keys.make_keys(tmp_path / "private.pem", paths.trusted_keys / "ada.pem")
    return tmp_path / "private.pem"


def write_model(folder: Path, text: str = "weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(text)
    return folder


def sign(folder: Path, paths: Paths, private: Path) -> Path:
    return signatures.sign_model(folder, digest_folder(folder), private, paths)


@pytest.fixture
def model(paths: Paths, private: Path) -> Path:
    folder = write_model(paths.bc("reach-v3"))
    sign(folder, paths, private)
    return folder


def test_a_signed_model_is_verified_by_the_name_of_its_key(model: Path, paths: Paths) -> None:
    assert signatures.verify_model(model) == "ada"
    assert signatures.is_signed(model, digest_folder(model), paths)


def test_signing_again_changes_nothing(model: Path, paths: Paths, private: Path) -> None:
    signature = paths.signature(digest_folder(model))
    before = signature.read_bytes()
    assert sign(model, paths, private) == signature
    assert signature.read_bytes() == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(data=st.data())
def test_one_flipped_bit_in_any_file_is_noticed(model: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(model.iterdir())))
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(flipped))
    try:
        with pytest.raises(DataError, match="not what was signed") as caught:
            signatures.verify_model(model)
        assert path.name in str(caught.value)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["extra.bin", ".gitignore"])
def test_a_file_more_or_less_is_noticed(model: Path, name: str) -> None:
    (model / name).write_text("")
    with pytest.raises(DataError, match=name):
        signatures.verify_model(model)
    (model / name).unlink()
    (model / "config.json").unlink()
    with pytest.raises(DataError, match=r"config\.json"):
        signatures.verify_model(model)


def test_a_key_that_is_not_trusted_does_not_count(model: Path, paths: Paths, tmp_path: Path) -> None:
    (paths.trusted_keys / "ada.pem").unlink()
    keys.make_keys(tmp_path / "other", paths.trusted_keys / "eve.pem")
    with pytest.raises(DataError, match="no trusted key") as caught:
        signatures.verify_model(model)
    assert paths.signature(digest_folder(model)).name in str(caught.value)


def test_a_forged_key_name_does_not_help(model: Path, paths: Paths, private: Path, tmp_path: Path) -> None:
    """A signature by another key that names the trusted one."""
    keys.make_keys(tmp_path / "other.pem", tmp_path / "other.pub")
    signature = paths.signature(digest_folder(model))
    good = signature.read_text()
    hint = good.partition('"hint":')[2].split('"')[1]
    signature.unlink()
    forged = sign(model, paths, tmp_path / "other.pem").read_text()
    signature.write_text(forged.replace(forged.partition('"hint":')[2].split('"')[1], hint))
    with pytest.raises(DataError, match="not what was signed"):
        signatures.verify_model(model)


def test_a_damaged_signature_is_named(model: Path, paths: Paths) -> None:
    signature = paths.signature(digest_folder(model))
    signature.write_text("{}")
    with pytest.raises(DataError, match="no signature") as caught:
        signatures.verify_model(model)
    assert signature.name in str(caught.value)


def test_a_flipped_bit_that_says_nothing_is_noticed(model: Path, paths: Paths) -> None:
    """The last letter of base64 holds bits that no reader looks at."""
    signature = paths.signature(digest_folder(model))
    content = signature.read_bytes()
    last = [match.start() for match in re.finditer(rb'[A-Za-z0-9+/]=+"', content)]
    assert last
    for place, bit in itertools.product(last, range(8)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        signature.write_bytes(bytes(flipped))
        with pytest.raises(DataError):
            signatures.verify_model(model)


def test_a_lost_signature_is_not_the_same_as_none(model: Path, paths: Paths) -> None:
    paths.signature(digest_folder(model)).unlink()
    with pytest.raises(DataError, match="signature of the model is missing"):
        signatures.verify_model(model)


def test_an_older_signed_model_may_come_back(model: Path, paths: Paths, private: Path) -> None:
    write_model(model, "trained anew")
    sign(model, paths, private)
    write_model(model, "weights")  # DVC's run cache, a rollback
    assert signatures.verify_model(model) == "ada"


def test_a_copy_elsewhere_in_the_repository_is_verified_too(model: Path, paths: Paths) -> None:
    copy = paths.champions("reach-v3") / digest_folder(model)[:16]
    shutil.copytree(model, copy)
    assert signatures.verify_model(copy) == "ada"


def test_a_new_model_is_loaded_until_it_is_recorded_unless_signatures_are_required(model: Path) -> None:
    signatures.forget(model)
    write_model(model, "trained anew")
    assert signatures.verify_model(model) is None
    signatures.use("require")
    with pytest.raises(DataError, match="nobody has signed"):
        signatures.verify_model(model)


def test_outside_a_repository_there_is_nothing_to_verify(tmp_path: Path) -> None:
    model = write_model(tmp_path / "elsewhere" / "model")
    signatures.forget(model)
    assert signatures.verify_model(model) is None


def test_off_is_off(model: Path) -> None:
    write_model(model, "changed")
    signatures.use("off")
    assert signatures.verify_model(model) is None


@pytest.fixture
def copied(model: Path, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model as a robot has it: in no repository, its signature beside it; and whom the robot trusts."""
    copy = tmp_path / "robot" / "policy"
    shutil.copytree(model, copy)
    shutil.copyfile(paths.signature(digest_folder(model)), tmp_path / "robot" / "policy.sig")
    shutil.copytree(paths.trusted_keys, tmp_path / "robot" / "keys")
    monkeypatch.setenv("WORLD4RL_TRUSTED_KEYS", str(tmp_path / "robot" / "keys"))
    return copy


def test_a_robots_copy_is_verified_by_the_signature_beside_it(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert signatures.verify_model(copied) == "ada"
    monkeypatch.chdir(copied.parent)
    assert signatures.verify_model(Path("policy")) == "ada"
    (copied / "model.safetensors").write_text("Weights")
    with pytest.raises(DataError, match="not what was signed"):
        signatures.verify_model(copied)


def test_a_robot_that_trusts_keys_loads_nothing_unsigned(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in (copied.parent / "keys").iterdir():
        key.unlink()
    with pytest.raises(DataError, match="no trusted key"):
        signatures.verify_model(copied)
    signatures.beside(copied).unlink()
    with pytest.raises(DataError, match="signature is missing") as caught:
        signatures.verify_model(copied)
    assert str(caught.value.where).endswith("policy.sig")
    monkeypatch.delenv("WORLD4RL_TRUSTED_KEYS")
    assert signatures.verify_model(copied) is None
    signatures.use("require")
    with pytest.raises(DataError, match="nobody has signed"):
        signatures.verify_model(copied)
