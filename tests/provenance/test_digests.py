from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from world4rl.errors import DataError
from world4rl.provenance.digests import digest_arrays, digest_file, digest_folder, digest_json, merkle_root


def leaf(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_merkle_root_is_that_of_rfc_6962() -> None:
    a, b, c = (hashlib.sha256(b"\x00" + bytes.fromhex(leaf(x))).digest() for x in (b"a", b"b", b"c"))
    pair = hashlib.sha256(b"\x01" + a + b).digest()
    assert merkle_root([]) == hashlib.sha256(b"").hexdigest()
    assert merkle_root([leaf(b"a")]) == a.hex()
    expected = hashlib.sha256(b"\x01" + pair + c).hexdigest()
    assert merkle_root([leaf(b"a"), leaf(b"b"), leaf(b"c")]) == expected


@given(
    st.lists(st.binary(max_size=2), unique=True, max_size=9), st.lists(st.binary(max_size=2), unique=True, max_size=9)
)
def test_different_lists_have_different_roots(one: list[bytes], other: list[bytes]) -> None:
    roots = merkle_root(map(leaf, one)), merkle_root(map(leaf, other))
    assert (roots[0] == roots[1]) == (one == other)


def test_array_digests_see_dtype_shape_name_and_header() -> None:
    values = np.arange(6, dtype=np.float32)
    digests = {
        digest_arrays({"a": values}),
        digest_arrays({"b": values}),
        digest_arrays({"a": values.view(np.int32)}),
        digest_arrays({"a": values.reshape(2, 3)}),
        digest_arrays({"a": values}, header={"task": "x"}),
        digest_arrays({"a": values[:3], "b": values[3:]}),
    }
    assert len(digests) == 6


def test_array_digests_do_not_see_layout() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    plain = digest_arrays({"a": values, "b": values[:1]})
    assert plain == digest_arrays({"b": values[:1].copy(), "a": np.asfortranarray(values)})
    assert plain == digest_arrays({"a": values.astype(">f4"), "b": values[:1]})


def test_json_digests_ignore_the_order_of_keys() -> None:
    assert (
        digest_json({"a": 1, "b": [1, 2]}) == digest_json({"b": [1, 2], "a": 1}) != digest_json({"a": 1, "b": [2, 1]})
    )


def test_folder_digest_sees_names_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_text("one")
    before = digest_folder(folder)
    (folder / "empty").mkdir()
    assert digest_folder(folder) == before
    (folder / "sub" / "file").write_text("two")
    changed = digest_folder(folder)
    (folder / "sub" / "file").write_text("one")
    (folder / "sub" / "file").rename(folder / "file")
    assert len({before, changed, digest_folder(folder)}) == 3


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone"):
        digest_file(tmp_path / "gone")
    with pytest.raises(DataError, match="gone"):
        digest_folder(tmp_path / "gone")
