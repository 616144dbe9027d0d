"""Which storage an instance is kept in, and whose runs are still going on."""

import os

import psutil
import pytest
import yaml
from dagster import DagsterInstance
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from pipelines import instance
from pipelines.instance import (
    POSTGRES,
    choose_storage,
    is_alive,
    lost_storage,
    owner_tag,
    prepare_home,
    require_postgres,
)
from world4rl.errors import ConfigError, MachineError

SECRET = "not-for-logs"
NOBODY = f"postgresql://lab:{SECRET}@127.0.0.1:9/runs"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setattr(os, "environ", {key: value for key, value in os.environ.items() if key != POSTGRES})


@pytest.fixture
def settings(tmp_path):
    file = prepare_home(tmp_path) / "dagster.yaml"
    assert "storage" not in yaml.safe_load(file.read_text())  # SQLite
    return file


def test_the_variable_alone_is_the_setting(settings):
    os.environ[POSTGRES] = NOBODY
    before = yaml.safe_load(settings.read_text())
    assert choose_storage(settings)
    after = yaml.safe_load(settings.read_text())
    assert after.pop("storage") == {"postgres": {"postgres_url": {"env": POSTGRES}}}
    assert after == before
    assert SECRET not in settings.read_text()
    assert "# Written once" in settings.read_text()  # comments stay
    noted = settings.read_text()
    assert choose_storage(settings)
    assert settings.read_text() == noted


def test_dagster_takes_the_settings(settings):
    with DagsterInstance.from_config(str(settings.parent)) as instance:
        queue = instance.get_concurrency_config().run_queue_config
        assert queue.max_concurrent_runs == 10
        assert [limit["key"] for limit in queue.tag_concurrency_limits] == [
            "world4rl/passage",
            "world4rl/dataset",
            "dagster/partition",
        ]
        assert queue.max_user_code_failure_retries * queue.user_code_failure_retry_delay >= 120
        assert instance.run_monitoring_enabled
        assert instance.event_log_storage.get_pool_config().default_pool_limit == 1


def test_whoever_forgets_the_variable_does_not_write_elsewhere(settings, tmp_path):
    os.environ[POSTGRES] = NOBODY
    choose_storage(settings)
    for value in (None, ""):
        os.environ.pop(POSTGRES)
        if value is not None:
            os.environ[POSTGRES] = value
        with pytest.raises(ConfigError) as caught:
            prepare_home(tmp_path)
        assert caught.value.where == str(settings)
        assert POSTGRES in caught.value.remedy
        os.environ[POSTGRES] = NOBODY


def test_a_storage_of_ones_own_stays_and_contradicts_the_variable(settings):
    own = settings.read_text() + "storage:\n  sqlite:\n    base_dir: /somewhere\n"
    settings.write_text(own)
    assert not choose_storage(settings)
    os.environ[POSTGRES] = NOBODY
    with pytest.raises(ConfigError, match="storage of its own"):
        choose_storage(settings)
    assert settings.read_text() == own


@pytest.mark.parametrize("text", ["storage: [", "- a list"])
def test_settings_that_cannot_be_read(settings, text):
    settings.write_text(text)
    with pytest.raises(ConfigError) as caught:
        choose_storage(settings)
    assert caught.value.where == str(settings)


@pytest.mark.parametrize("address", ["localhost", "mysql://a@b/c", f"host=there password={SECRET}", ""])
def test_what_is_no_address_is_said_without_repeating_it(address):
    with pytest.raises(ConfigError) as caught:
        require_postgres(address)
    assert SECRET not in str(caught.value)
    assert "postgresql://USER" in caught.value.remedy


@pytest.mark.parametrize("sign", "/?#@")
def test_a_password_that_is_not_written_as_in_an_address_is_not_taken_for_a_host(sign):
    os.environ[POSTGRES] = f"postgresql://lab:hush{sign}whisper@127.0.0.1:9/runs"
    with pytest.raises(ConfigError) as caught:
        require_postgres(os.environ[POSTGRES])
    assert "hush" not in str(caught.value)
    assert "whisper" not in str(caught.value)
    assert "%2F" in caught.value.remedy


def test_a_server_that_does_not_answer_is_named_without_its_password():
    os.environ[POSTGRES] = NOBODY
    with pytest.raises(MachineError) as caught:
        require_postgres(NOBODY)
    assert "does not answer" in caught.value.problem
    assert caught.value.where == "postgresql://127.0.0.1:9/runs"
    assert SECRET not in str(caught.value)


def test_sqlite_files_on_a_full_disk_are_one_error_that_names_their_folder(settings, tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'runs.db'}")
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE runs (body TEXT)"))
        connection.execute(text("PRAGMA max_page_count = 3"))  # SQLite then says what it says on a full disk
        with pytest.raises(OperationalError) as caught:
            connection.execute(text("INSERT INTO runs VALUES (:body)"), {"body": "x" * 100_000})
    engine.dispose()
    lost = lost_storage(caught.value)
    assert "database or disk is full" in lost.problem
    assert "SQL:" not in str(lost)
    assert lost.where == str(settings.parent)
    assert lost_storage(ValueError("of something else")) is None


def test_a_process_is_told_from_a_later_one_of_the_same_number():
    (owner,) = owner_tag().values()
    assert is_alive(owner)
    number, _, rest = owner.partition("-")
    began, _, host = rest.partition("@")
    assert not is_alive(f"{number}-{int(began) - 5}@{host}")
    free = next(n for n in range(2, 10**7) if not psutil.pid_exists(n))
    assert not is_alive(f"{free}-{began}@{host}")


def test_a_process_of_another_machine_is_not_taken_for_dead(monkeypatch):
    (owner,) = owner_tag().values()
    gone = owner.replace(str(os.getpid()), "999999999", 1)
    assert not is_alive(gone)
    monkeypatch.setattr(instance.socket, "gethostname", lambda: "elsewhere")
    assert is_alive(gone)
