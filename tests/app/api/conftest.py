"""A service with trained models, shared by tests that only look."""

import shutil

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.settings import Settings
from app.store import Database
from tests.factories import client_of, npy, npz, run_jobs


@pytest.fixture(scope="session")
def trained(tmp_path_factory, broker_url, migrated_sqlite):
    """A client with an image model and a vector model."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(migrated_sqlite, folder / "clusterserve.db")
    settings = Settings(data_dir=folder, broker_url=broker_url, runner_threads=1)
    database = Database(settings.resolved_database_url)
    vectors = np.concatenate([np.zeros((9, 2)), np.ones((9, 2))]) + np.random.default_rng(0).normal(0, 0.35, (18, 2))
    with client_of(settings) as client:
        models = []
        for data, k in ((npz(12), 3), (npy(vectors), 2)):
            dataset = client.post("/v1/datasets", content=data).json()
            run_jobs(settings, database)
            client.post(
                "/v1/jobs",
                json={"kind": "train", "method": "kmeans", "dataset_id": dataset["id"], "config": {"n_clusters": k}},
            )
            run_jobs(settings, database)
            models.append(client.get("/v1/models").json()["items"][0]["id"])
        database.close()
        yield client, *models


@pytest.fixture
def work_on():
    """Run the queued jobs of a client's service, here and now."""

    def work(client: TestClient) -> None:
        parts = client.app.state.service
        run_jobs(parts.settings, parts.database)

    return work
