"""Data and makers for the checks that every registered method must pass."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from models import registry
from models.base import Clusterer, Run, StepState
from models.export import export_onnx
from models.pixels import InputSpec
from tests.factories import blobs_of_pixels

N, K = 60, 3


def images(side: int = 8, channels: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Stored inputs uint8 (N, C, S, S) of three clear kinds, and the kinds."""
    x, kinds = blobs_of_pixels(N, seed, side)
    return np.repeat(x[:, None], channels, axis=1), kinds


def vectors(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Stored inputs float32 (N, 4) of three clear kinds, far from the origin, and the kinds."""
    kinds = np.arange(N) % K
    noise = np.random.default_rng(seed).normal(scale=0.2, size=(N, 4))
    return (noise + kinds[:, None] * 8 + 1000).astype(np.float32), kinds


def spec_of(x: np.ndarray) -> InputSpec:
    if x.ndim == 2:
        return InputSpec("vectors", n_features=x.shape[1])
    return InputSpec("images", side=x.shape[2], channels=x.shape[1])


def make(method: str, x: np.ndarray, profile: str = "paper", **values: object) -> Clusterer:
    spec = registry.get(method)
    return spec.load()(
        spec.make_config(profile, {"n_clusters": K, **SHORT.get((method, profile), {}), **values}), spec_of(x)
    )


def fitted(method: str, profile: str, data: str = "gray 8") -> Clusterer:
    """A model of one kind of data, for tests that only look at it."""
    return undisturbed(method, profile, data)[0]


@cache
def undisturbed(method: str, profile: str, data: str) -> tuple[Clusterer, list[StepState]]:
    """One fit to its end, and all that it told."""
    x, _ = DATA[data]()
    states: list[StepState] = []
    return make(method, x, profile).fit(x, Run(on_step=states.append)), states


@cache
def exported(method: str, profile: str, data: str) -> bytes:
    """The ONNX file of `fitted`."""
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(fitted(method, profile, data), Path(folder) / "model.onnx", DATA[data]()[0])
        return (Path(folder) / "model.onnx").read_bytes()


# Enough for data this small and clear; what the recipes reach on real images is measured elsewhere.
EASY_START = {"view": "raw", "n_neighbors": 5, "n_starts": 1, "n_init": 2}
SHORT: dict[tuple[str, str], dict[str, object]] = {
    ("dcae", "paper"): {"n_epochs": 20, "batch_size": 10},
    ("dcae", "fast"): {**EASY_START, "n_epochs": 1, "n_hold_steps": 180, "batch_size": 10},
    ("graph-selflabel", "fast"): {
        **EASY_START, "n_hold_steps": 45, "n_rounds": 2, "n_round_steps": 9, "n_distil_steps": 9, "batch_size": 20,
    },
    ("depict", "paper"): {"n_pretrain_epochs": 20, "n_epochs": 5, "batch_size": 20, "learning_rate": 1e-3},
    ("depict", "fast"): {**EASY_START, "n_hold_steps": 60, "n_epochs": 2, "batch_size": 20},
    ("dual-autoencoder", "paper"): {
        "n_pretrain_epochs": 60, "n_spectral_epochs": 30, "n_epochs": 10, "pretrain_batch_size": 20, "batch_size": 60,
    },
    ("dual-autoencoder", "fast"): {
        **EASY_START, "n_hold_steps": 45, "n_epochs": 1, "pretrain_batch_size": 20, "batch_size": 60,
    },
    ("precise-feature", "fast"): {
        **EASY_START, "n_hold_steps": 24, "n_imitation_steps": 6, "n_steps": 1, "batch_size": 20,
    },
    ("precise-feature", "paper"): {"n_steps": 1, "batch_size": 20},
    ("adaptive-gmm", "paper"): {
        "n_rbm_steps": 400, "n_finetune_steps": 400, "n_steps": 12, "learning_rate": 0.1, "pretrain_batch_size": 20,
        "batch_size": 20, "hidden_units": (32, 32, 64), "clip": 1.0,
    },
    ("adaptive-gmm", "fast"): {
        **EASY_START, "n_hold_steps": 60, "n_steps": 6, "batch_size": 20, "hidden_units": (32, 32, 64),
    },
}  # fmt: skip
CASES: list[tuple[str, str]] = [
    (name, profile) for name, spec in registry.methods().items() for profile in spec.profiles
]
DATA: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "gray 8": images,
    "rgb 16": lambda: images(16, 3),
    "vectors": vectors,
}
CASES_ON_DATA = [
    (name, profile, data)
    for name, profile in CASES
    for data in DATA
    if ("vectors" if data == "vectors" else "images") in registry.get(name).data
]
# Both profiles of a method train one network, so what is exported differs in its numbers only.
NETWORKS_ON_DATA = [case for case in CASES_ON_DATA if case[1] == list(registry.get(case[0]).profiles)[-1]]
NETWORKS = [case[:2] for case in NETWORKS_ON_DATA if case[2] == "gray 8"]
CASES_ON_VECTORS = [case[:2] for case in CASES_ON_DATA if case[2] == "vectors"]
# The paper's game takes hours to tell images apart (a thorough test has it find eight Gaussian blobs). NMF looks for
# parts, of which one of these kinds has none (tests/models/test_features.py has kinds that are parts).
UNFIT = {("precise-feature", "paper"), ("nmf", "paper")}
FIT_ON_DATA = [case for case in CASES_ON_DATA if case[:2] not in UNFIT]
