"""The real servers that a site may keep things on, started for a test on loopback: PostgreSQL, and one for S3."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import boto3
import psycopg2
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from benchmarks.live import free_port, wait_for

DEBIAN = Path("/usr/lib/postgresql")
PASSWORD = "not-for-logs"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "not-for-files", "AWS_DEFAULT_REGION": "us-east-1"}


def postgres_program(name: str) -> str:
    """The path of a program of the server, found as `scripts/setup.sh` does; the test fails where there is none."""
    if "POSTGRES_BIN" in os.environ:
        found = shutil.which(name, path=os.environ["POSTGRES_BIN"])
    else:
        newest = sorted(DEBIAN.glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
        found = shutil.which(name) or (str(newest[-1]) if newest else None)
    if found is None:
        pytest.fail(f"{name} is missing: `scripts/setup.sh tests` installs PostgreSQL (or: apt-get install postgresql)")
    return found


class Postgres:
    """A server of its own, with its data in a temporary folder. It refuses to run as root: another user runs it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="world4rl-postgres-"))
        self.port = free_port()
        self._user = self._other_user() if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run(
            [
                *(postgres_program("initdb"), "--no-sync", "--auth=scram-sha-256", "--username=lab", "--encoding=UTF8"),
                *("--no-locale", f"--pwfile={secret}", f"--pgdata={self.folder / 'data'}"),
            ]
        ).wait(timeout=120)
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"postgresql://lab:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        program = postgres_program("postgres")
        options = ["-D", str(self.folder / "data"), "-p", str(self.port), "-k", str(self.folder)]
        self._server = self._run([program, *options, "-c", "listen_addresses=127.0.0.1"])
        wait_for("PostgreSQL", self._answers, 60)

    def kill(self) -> None:
        """Ends it at once, as a crash does."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(timeout=30)
            self._server = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(command, cwd="/", stdout=log, stderr=log, user=self._user, group=self._group)

    @property
    def _group(self) -> int | None:
        return None if self._user is None else pwd.getpwnam(self._user).pw_gid

    @staticmethod
    def _other_user() -> str:
        names = {entry.pw_name for entry in pwd.getpwall()}
        return "postgres" if "postgres" in names else "nobody"

    def _answers(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, (self.folder / "log").read_text()
        with suppress(psycopg2.OperationalError):
            psycopg2.connect(self.address).close()
            return True
        return False


class S3:
    """A server of the `moto` package; it keeps everything in memory."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name=KEYS["AWS_DEFAULT_REGION"],
        )
        wait_for("the S3 server", self._answers, 60)

    def names(self, bucket: str) -> list[str]:
        """Every object in a bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def stop(self) -> None:
        self._server.terminate()
        self._server.wait(timeout=30)

    def _answers(self) -> bool:
        assert self._server.poll() is None
        with suppress(EndpointConnectionError, ClientError):
            self.client.list_buckets()
            return True
        return False
