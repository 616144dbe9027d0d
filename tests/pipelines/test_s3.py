"""DVC's remote on S3, with a real server; and its going away."""

import hashlib
import shutil
import time

import pytest

from tests.pipelines.servers import KEYS, S3

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def s3():
    server = S3()
    yield server
    server.stop()


@pytest.fixture
def bucket(s3):
    name = f"bucket-{time.monotonic_ns()}"
    s3.client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def keys(monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


def add_remote(toy, bucket, url):
    assert toy.dvc("remote", "add", "--local", "-d", "store", f"s3://{bucket}/lineage").returncode == 0
    assert toy.dvc("remote", "modify", "--local", "store", "endpointurl", url).returncode == 0


def contents(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("data/raw", "data/landed", "data/store", "models", "reports")
        for path in (root / folder).rglob("*")
        if path.is_file()
    }


def test_a_remote_on_s3_brings_every_byte_to_a_fresh_clone(toy, make_toy, tmp_path, s3, bucket, keys):
    assert toy.dvc("repro").returncode == 0
    add_remote(toy, bucket, s3.url)
    pushed = toy.dvc("push")
    assert pushed.returncode == 0, pushed.stderr
    assert s3.names(bucket)
    assert all(name.startswith("lineage/files/md5/") for name in s3.names(bucket))

    clone = make_toy(tmp_path / "clone")
    shutil.copy(toy.root / "dvc.lock", clone.root)
    add_remote(clone, bucket, s3.url)
    pulled = clone.dvc("pull")
    assert pulled.returncode == 0, pulled.stderr
    assert contents(clone.root) == contents(toy.root)
    assert clone.dvc("repro").returncode == 0
    assert clone.ran() == []
    for file in (clone.root / ".dvc").glob("config*"):
        assert KEYS["AWS_SECRET_ACCESS_KEY"] not in file.read_text()


def test_what_was_not_pushed_is_named(toy, make_toy, tmp_path, s3, bucket, keys):
    assert toy.dvc("repro").returncode == 0
    clone = make_toy(tmp_path / "clone")
    shutil.copy(toy.root / "dvc.lock", clone.root)
    add_remote(clone, bucket, s3.url)
    pulled = clone.dvc("pull")
    assert pulled.returncode != 0
    assert "models/world_model" in pulled.stdout + pulled.stderr


@pytest.mark.parametrize("missing", ["remote", "bucket", "server"])
def test_a_missing_remote_is_one_error_and_the_lineage_goes_on(toy, s3, bucket, keys, missing):
    assert toy.dvc("repro").returncode == 0
    toy.ran()
    before = contents(toy.root)
    if missing != "remote":
        add_remote(toy, "no-such-bucket" if missing == "bucket" else bucket, s3.url)
    if missing == "server":
        toy.dvc("remote", "modify", "--local", "store", "endpointurl", "http://127.0.0.1:9")
    pushed = toy.dvc("push")
    assert pushed.returncode != 0
    assert {"remote": "dvc remote add", "bucket": "NoSuchBucket", "server": "127.0.0.1:9"}[missing] in pushed.stderr
    assert contents(toy.root) == before
    toy.set("world_model/batch_size", 3)
    assert toy.dvc("repro").returncode == 0
    assert "world_model" in toy.ran()
