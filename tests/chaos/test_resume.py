"""Deep trainings killed midway go on from their last checkpoint, to the assignments of an undisturbed run."""

import numpy as np
import pytest

from tests.factories import npz
from tests.servers import wait_until

# Noise with five clusters: nothing to agree on, so every epoch moves images and a resume that strays shows.
K = 5
PATIENCE_S = 600
CONFIGS = {
    "graph-selflabel": {
        "batch_size": 20,
        "n_hold_steps": 900,
        "n_rounds": 6,
        "n_round_steps": 300,
        "n_distil_steps": 300,
    },
    "dcae": {"batch_size": 20, "n_hold_steps": 240, "n_epochs": 10, "stop_change": 0.0},
    "depict": {"batch_size": 20, "n_hold_steps": 150, "n_epochs": 10, "stop_change": 0.0},
    "adaptive-gmm": {
        "batch_size": 20,
        "n_hold_steps": 900,
        "n_steps": 600,
        "stop_change": 0.0,
        "hidden_units": [32, 32, 64],
    },
    "dual-autoencoder": {"pretrain_batch_size": 20, "n_hold_steps": 600, "n_epochs": 40, "stop_change": 0.0},
    "precise-feature": {"batch_size": 20, "n_hold_steps": 100, "n_imitation_steps": 200, "n_steps": 30},
}
USUAL = {("production", "depict")}
VICTIMS = {"dcae": "worker", "depict": "runner", "adaptive-gmm": "worker", "dual-autoencoder": "runner"}


@pytest.fixture
def dataset_id(service, tmp_path_factory) -> str:
    x = np.random.default_rng(1).integers(0, 255, (120, 8, 8), np.uint8)
    path = tmp_path_factory.mktemp("deep") / "set.npz"
    path.write_bytes(npz(x=x))
    dataset = service.client.upload(path)
    assert service.wait_for(dataset["job_id"])["state"] == "succeeded"
    return str(dataset["id"])


@pytest.mark.parametrize(
    ("service", "method"),
    # The battery resumes every method at three moments; here one runner dies, and in `make chaos` all.
    [
        pytest.param(trio, method, marks=[] if (trio, method) in USUAL else pytest.mark.thorough)
        for trio in ("embedded", "production")
        for method in CONFIGS
    ],
    indirect=["service"],
)
def test_a_training_killed_midway_ends_as_if_it_had_not_been(service, dataset_id, method):
    def start() -> str:
        config = {**CONFIGS[method], "hold_agreement": 1.0}
        return str(service.client.train(dataset_id, method, K, seed=3, config=config)["id"])

    undisturbed = service.wait_for(start(), PATIENCE_S)
    job_id = start()
    wait_until(lambda: kept(service, job_id), PATIENCE_S, "a checkpoint")
    service.kill(VICTIMS.get(method, "runner"))
    job = service.wait_for(job_id, PATIENCE_S)

    assert (undisturbed["state"], job["state"], job["attempt"]) == ("succeeded", "succeeded", 2)
    assert service.clusters_of(job["assignment_set_id"]) == service.clusters_of(undisturbed["assignment_set_id"])
    assert told(service, job) == told(service, undisturbed)  # no epoch is missing, none is told twice
    wait_until(lambda: not service.keys(f"t/default/checkpoint/{job_id}/"), 20, "the sweep")


def kept(service, job_id: str) -> list[str]:
    """Checkpoints that the job's events tell of."""
    page = service.client._call("GET", f"/v1/jobs/{job_id}/events", params={"limit": 1000})
    return [event["data"]["prefix"] for event in page["items"] if event["type"] == "checkpoint"]


def told(service, job: dict[str, object]) -> list[tuple[str, int]]:
    history = service.client._call("GET", f"/v1/models/{job['model_id']}/history")["epochs"]
    return [(epoch["phase"], epoch["epoch"]) for epoch in history]
