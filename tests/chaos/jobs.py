"""The three kinds of job that chaos disturbs, and what must be true once one of them has ended."""

import time
from pathlib import Path
from typing import Any

from tests.servers import wait_until
from tests.service import Watched

PHASE = {"ingest": "decode", "train": "cluster", "assign": "assign"}
SEED, K = 3, 5


class Expected:
    """A dataset and a model that nobody disturbed."""

    def __init__(self, service: Watched, file: Path) -> None:
        dataset = service.client.upload(file)
        assert service.wait_for(dataset["job_id"])["state"] == "succeeded"
        self.file, self.dataset_id = file, dataset["id"]
        self.n_images = service.client.dataset(self.dataset_id)["n_images"]
        job = service.wait_for(train(service, self.dataset_id))
        self.model_id = job["model_id"]
        self.clusters = service.clusters_of(job["assignment_set_id"])

    def submit(self, service: Watched, kind: str) -> str:
        """Start one more job of a kind; its id."""
        if kind == "ingest":
            return str(service.client.upload(self.file)["job_id"])
        if kind == "train":
            return train(service, self.dataset_id)
        body = {"kind": "assign", "model_id": self.model_id, "dataset_id": self.dataset_id}
        return str(service.client._call("POST", "/v1/jobs", json=body)["id"])

    def check(self, service: Watched, kind: str, job_id: str, seconds: float = 120) -> dict[str, Any]:
        """It succeeded without anybody's help, left exactly one right result, and nothing and nobody else."""
        job = service.wait_for(job_id, seconds)
        assert job["state"] == "succeeded", job
        if kind == "ingest":
            dataset = service.client.dataset(job["dataset_id"])
            assert (dataset["state"], dataset["n_images"]) == ("ready", self.n_images)
        else:
            made = "models" if kind == "train" else "assignment-sets"
            found = [one["id"] for one in service.client._all(f"/v1/{made}") if one["job_id"] == job_id]
            assert found == [job["model_id" if kind == "train" else "assignment_set_id"]]
            assert service.clusters_of(job["assignment_set_id"]) == self.clusters
        wait_until(lambda: not service.runners_of(), 20, "the end of every runner")
        wait_until(lambda: not service.garbage(), 30, "the sweep")
        return job


def train(service: Watched, dataset_id: str) -> str:
    return str(service.client.train(dataset_id, "kmeans", K, seed=SEED, config={"n_init": 1})["id"])


def until_running(service: Watched, job_id: str) -> None:
    """Wait until an attempt at the job has begun, or it has ended already."""
    wait_until(lambda: service.client.job(job_id)["state"] != "queued", 60, f"the start of {job_id}")
    time.sleep(0.05)
