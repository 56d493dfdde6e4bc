"""`python -m benchmarks.digests OUT.json`: what every method's fit gives, to the bit, to compare two commits.

Per method, profile and data set: SHA-256 of all parameters, of the losses of every report, and of the assignments.
Two commits give the same results if their files are equal. It needs nothing newer than `models.registry`, so it also
runs on commits before it, on the same machine: `PYTHONPATH=OTHER_CHECKOUT python benchmarks/digests.py OUT.json`.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from models import registry
from models.base import Run, StepState
from models.errors import ClusteringError
from models.pixels import InputSpec

N_USPS = 2_000
SMALL_UNITS = (32, 32, 64)
# Schedules short enough for every method on 2,000 images, long enough to pass through every phase.
SHORT: dict[tuple[str, str], dict[str, Any]] = {
    ("graph-selflabel", "fast"): {"n_hold_steps": 32, "n_rounds": 2, "n_round_steps": 16, "n_distil_steps": 16},
    ("dcae", "paper"): {"n_epochs": 3},
    ("dcae", "fast"): {"n_epochs": 2, "n_hold_steps": 45},
    ("depict", "paper"): {"n_pretrain_epochs": 2, "n_epochs": 3, "n_kmeans_init": 4},
    ("depict", "fast"): {"n_hold_steps": 24, "n_epochs": 2, "n_keep_steps": 8},
    ("dual-autoencoder", "paper"): {"n_pretrain_epochs": 2, "n_spectral_epochs": 2, "n_epochs": 2},
    ("dual-autoencoder", "fast"): {"n_hold_steps": 16, "n_epochs": 2},
    ("adaptive-gmm", "paper"): {"n_rbm_steps": 30, "n_finetune_steps": 20, "n_steps": 20, "clip": 1.0},
    ("adaptive-gmm", "fast"): {"n_hold_steps": 40, "n_steps": 16},
    ("precise-feature", "paper"): {"n_steps": 2},
    ("precise-feature", "fast"): {"n_hold_steps": 20, "n_imitation_steps": 20, "n_steps": 2},
}
# What turns a method into other code than its profiles do.
VARIANTS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "depict": [
        ("paper", {"learning": "sda"}), ("paper", {"learning": "rda"}), ("fast", {"max_move": 1e-9}),
        ("fast", {"cluster_prior": tuple(float(k + 1) for k in range(10))}),
    ],
    "dual-autoencoder": [("paper", {"spectral": False}), ("fast", {"spectral": False}), ("fast", {"max_move": 1e-9})],
    "adaptive-gmm": [("fast", {"max_move": 1e-9}), ("paper", {"max_move": 1e-9})],
    "precise-feature": [("fast", {"max_move": 1e-9}), ("paper", {"augment": True, "max_move": 1e-9})],
    "kmeans": [("paper", {"features": "autoencoder", "n_feature_epochs": 2})],
}  # fmt: skip


def data_sets(usps: Path | None) -> dict[str, NDArray[Any]]:
    """Stored inputs by name: the digits, vectors made of them, noise in colour, and USPS where its file is given."""
    digits = load_digits()
    rng = np.random.default_rng(0)
    found: dict[str, NDArray[Any]] = {
        "digits": (digits.images * (255 / 16)).astype(np.uint8)[:, None],
        "vectors": (digits.data[:400] + 100).astype(np.float32),
        "colour": rng.integers(0, 255, (120, 3, 16, 16), np.uint8),
    }
    if usps is not None:
        found["usps"] = np.load(usps)["x"][:N_USPS, None]
    return found


def digest(method: str, profile: str, x: NDArray[Any], values: dict[str, Any]) -> dict[str, Any]:
    """One fit, seed 0."""
    spec = registry.get(method)
    is_vectors = x.ndim == 2
    input_spec = (
        InputSpec("vectors", n_features=x.shape[1]) if is_vectors else InputSpec("images", x.shape[2], x.shape[1])
    )
    losses, n_reports = hashlib.sha256(), 0

    def on_step(state: StepState) -> None:
        nonlocal n_reports
        n_reports += 1
        told = [state.phase, state.step, sorted(state.losses.items()), state.label_change, state.cluster_sizes]
        losses.update(repr(told).encode())
        if state.assignments is not None:
            losses.update(np.ascontiguousarray(state.assignments).tobytes())

    model = spec.load()(spec.make_config(profile, {"n_clusters": 10, **values}), input_spec)
    try:
        model.fit(x, Run(seed=0, on_step=on_step))
    except ClusteringError as error:  # a schedule so short may collapse; it must do so in both
        return {"error": error.code, "losses": losses.hexdigest(), "reports": n_reports}
    parameters = hashlib.sha256()
    for name, tensor in _state(model).items():
        parameters.update(name.encode())
        parameters.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {
        "parameters": parameters.hexdigest(),
        "losses": losses.hexdigest(),
        "assignments": hashlib.sha256(model.assign(x).tobytes()).hexdigest(),
        "reports": n_reports,
    }


def _state(model: Any) -> dict[str, torch.Tensor]:
    """Parameters and buffers, under whatever name the model keeps its serving graph."""
    graph = model.serving_graph if hasattr(model, "serving_graph") else model.graph
    found: dict[str, torch.Tensor] = graph.state_dict()
    return found


def main(out: Path, usps: Path | None) -> None:
    """Write all digests, one after the other, so that a run cut short still has some."""
    torch.set_num_threads(1)
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    for name, x in data_sets(usps).items():
        kind = "vectors" if x.ndim == 2 else "images"
        for method, spec in registry.methods().items():
            if kind not in spec.data:
                continue
            cases: list[tuple[str, dict[str, Any]]] = [(profile, {}) for profile in spec.profiles] + VARIANTS.get(
                method, []
            )
            for profile, variant in cases:
                values = {**SHORT.get((method, profile), {}), **variant}
                key = " ".join([name, method, profile, json.dumps(variant)])
                if key in found:
                    continue
                found[key] = digest(method, profile, x, values)
                out.write_text(json.dumps(found, indent=1))
                sys.stdout.write(f"{key}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
