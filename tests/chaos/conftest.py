"""Both trios, running, each one for all that is done to it: `pytest tests/chaos --moments 10`."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tests import production as production_set_up
from tests.chaos.jobs import Expected
from tests.factories import npz
from tests.service import Watched, running

N_IMAGES = 6_000


KINDS = ("ingest", "train", "assign")
# Who dies, and in `make test`, which runs one moment of each on the trio of several machines, in the middle of what.
VICTIMS = {
    ("runner",): "train",
    ("worker",): "ingest",
    ("api",): "assign",
    ("valkey",): "assign",
    ("runner", "worker", "api", "valkey"): "train",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--moments", type=int, default=0, help="seeded moments at which each victim is killed; 0: a few")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "moment" not in metafunc.fixturenames:
        return
    n_moments = metafunc.config.getoption("--moments", default=0)
    cases = [(kind, victims, 0) for victims, kind in VICTIMS.items()]
    if n_moments:
        cases = list(product(KINDS, VICTIMS, range(n_moments)))
    ids = [f"{kind}-{victims[0] if len(victims) == 1 else 'all'}-{moment}" for kind, victims, moment in cases]
    metafunc.parametrize(("kind", "victims", "moment"), cases, ids=ids)


@pytest.fixture(scope="package")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with running(tmp_path_factory.mktemp("embedded") / "data") as found:
        yield found


@pytest.fixture(scope="package")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("production") / "data"
    with production_set_up.backends() as backends, production_set_up.running(folder, backends) as found:
        yield found


@pytest.fixture(params=[pytest.param("embedded", marks=pytest.mark.thorough), "production"])
def service(request: pytest.FixtureRequest) -> Watched:
    found: Watched = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="package")
def expected_of(file: Path) -> Callable[[Watched], Expected]:
    return cache(lambda service: Expected(service, file))


@pytest.fixture
def expected(service: Watched, expected_of: Callable[[Watched], Expected]) -> Expected:
    return expected_of(service)


@pytest.fixture(scope="package")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough random images that ingest and training take a second or two."""
    x = np.random.default_rng(0).integers(0, 255, (N_IMAGES, 28, 28), np.uint8)
    path = tmp_path_factory.mktemp("file") / "set.npz"
    path.write_bytes(npz(x=x))
    return path
