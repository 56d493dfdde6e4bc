"""The two set-ups every store and job test runs on: SQLite with a folder, and Postgres with an S3 server."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from app.settings import Settings
from app.store import Database
from app.store.blobs import Blobs, connect
from app.store.migrate import upgrade
from tests import servers
from tests.factories import client_of, npz, run_jobs

_numbers = itertools.count()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a file run in one process, and all of `chaos`, which share the services they disturb.

    All of tests/slow is `thorough`.
    """
    for item in items:
        file = item.path.relative_to(Path(__file__).parent)
        if file.parts[0] == "slow":
            item.add_marker(pytest.mark.thorough)
        item.add_marker(pytest.mark.xdist_group("chaos" if file.parts[0] == "chaos" else str(file)))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their argument: archives hold the time they were made, and processes must agree on names."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server with a migrated template database."""
    with servers.Postgres() as server:
        with psycopg.connect(f"{server.url}/postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE migrated")
        database = Database(f"{server.url}/migrated")
        upgrade(database)
        database.close()
        yield server.url


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    with servers.s3() as url:
        servers.create_bucket(url)
        yield url


@pytest.fixture(scope="session")
def broker_url() -> Iterator[str]:
    with servers.Valkey() as server:
        yield server.url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    database = Database(f"sqlite:///{path}")
    upgrade(database)
    database.close()
    return path


@pytest.fixture(params=["embedded", "production"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, broker_url: str) -> Settings:
    """A fresh, migrated set-up: both trios."""
    if request.param == "production":
        return production(request, tmp_path, broker_url)
    return embedded(request, tmp_path, broker_url)


@pytest.fixture
def embedded_settings(request: pytest.FixtureRequest, tmp_path: Path, broker_url: str) -> Settings:
    """A fresh SQLite and folder, for what does not depend on the set-up."""
    return embedded(request, tmp_path, broker_url)


def embedded(request: pytest.FixtureRequest, tmp_path: Path, broker_url: str) -> Settings:
    shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "clusterserve.db")
    return Settings(data_dir=tmp_path, broker_url=broker_url, runner_threads=1, max_map_images=0)


def production(request: pytest.FixtureRequest, tmp_path: Path, broker_url: str) -> Settings:
    url, name = request.getfixturevalue("postgres_url"), f"test_{next(_numbers)}"
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE migrated")
    return Settings(
        data_dir=tmp_path,
        broker_url=broker_url,
        runner_threads=1,
        max_map_images=0,  # a map takes longer than all else; who looks at one says so
        database_url=f"{url}/{name}",
        storage_url=f"s3://clusterserve/{name}",
        s3_endpoint=request.getfixturevalue("s3_url"),
        s3_access_key=servers.S3_KEY,
        s3_secret_key=servers.S3_SECRET,
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    found = Database(settings.resolved_database_url)
    yield found
    found.close()


@pytest.fixture
def blobs(settings: Settings) -> Blobs:
    return connect(settings)


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """The API over a fresh set-up; no worker listens, so jobs stay queued until `work` runs them."""
    with client_of(settings) as found:
        yield found


@pytest.fixture
def light_client(embedded_settings: Settings) -> Iterator[TestClient]:
    """The API on SQLite and a folder only, for what does not depend on the set-up."""
    with client_of(embedded_settings) as found:
        yield found


@pytest.fixture
def work(settings: Settings, database: Database) -> Callable[[], int]:
    """Run every queued job with real runners, here and now; how many there were."""
    return lambda: run_jobs(settings, database)


@pytest.fixture
def make_dataset(client: TestClient, work: Callable[[], int]) -> Callable[..., dict[str, Any]]:
    """A ready dataset of small random images (or whatever file is given)."""

    def make(data: bytes | None = None, n_images: int = 12) -> dict[str, Any]:
        created = client.post("/v1/datasets", content=npz(n_images) if data is None else data).json()
        work()
        found: dict[str, Any] = client.get(f"/v1/datasets/{created['id']}").json()
        return found

    return make
