"""Train: a dataset and a config become a model, its clusters and its assignment set."""

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app.inference.served import ServedModel
from models import metrics, registry
from models.base import Clusterer, Run, StepState
from models.export import export_onnx
from workers import inputs, outcome
from workers.inputs import Span
from workers.runner import Work

LOAD, FIT, ASSIGN = Span(0.0, 0.1), Span(0.1, 0.85), Span(0.9, 0.98)
MEDIA_TYPES = {
    ".onnx": "application/octet-stream",
    ".safetensors": "application/octet-stream",
    ".json": "application/json",
}
VERSIONS = ("torch", "scikit-learn", "numpy", "pillow", "onnxruntime")


def run(work: Work) -> dict[str, Any]:
    """Fit, export, assign, score; the rows to publish."""
    spec = registry.get(work.job.method or "")
    config = spec.config(**work.job.config)
    input_spec = inputs.choose_spec(work.dataset, config)
    work.report.phase("load", LOAD.start)
    x = inputs.load(work, input_spec, LOAD)

    model: Clusterer = spec.load()(config, input_spec)
    model.profile = work.job.profile or "paper"
    model.fit(x, Run(work.job.seed, _device(), _forward(work), work.job.batch_scale))

    work.report.phase("export", FIT.stop)
    folder = work.scratch / "model"
    model.save(folder)
    export_onnx(model, folder / "model.onnx", x)
    served = ServedModel((folder / "model.onnx").read_bytes(), input_spec, torch.get_num_threads())

    work.report.phase("assign", ASSIGN.start)
    assignments = outcome.assign_all(work, served, x, ASSIGN)
    work.report.phase("publish", ASSIGN.stop)
    scores = _scores(work, model, x, assignments.cluster)
    result = outcome.write(work, assignments, config.n_clusters, scores)
    row = {
        "config": asdict(config),
        "n_clusters": config.n_clusters,
        "n_images": len(x),
        "input_spec": asdict(input_spec),
        "scores": scores,
        "artifacts": _publish_files(work, folder),
    }
    return {"model": row, **result}


def _forward(work: Work) -> Any:
    """The library's `on_step` as events of the job."""
    phase = ""

    def on_step(state: StepState) -> None:
        nonlocal phase
        progress = FIT.at(state.progress)
        if state.phase != phase:
            phase = state.phase
            work.report.phase(phase, progress)
        facts: dict[str, Any] = {"phase": phase, "step": state.step}
        if state.losses:
            facts["losses"] = dict(state.losses)
        if state.label_change is not None:
            facts["label_change"] = state.label_change
        if state.cluster_sizes is not None:
            facts["cluster_sizes"] = state.cluster_sizes
        work.report.step(progress, **facts)

    return on_step


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _scores(work: Work, model: Clusterer, x: NDArray[Any], clusters: NDArray[np.int32]) -> dict[str, Any]:
    sizes = np.bincount(clusters, minlength=model.config.n_clusters)
    sample = np.sort(np.random.default_rng(0).permutation(len(x))[: metrics.SILHOUETTE_SAMPLE])
    scores: dict[str, Any] = {
        "uniformity": metrics.uniformity(sizes),
        "silhouette": metrics.silhouette(model.embed(x[sample]), clusters[sample]),
    }
    known = outcome.targets(work)
    return scores if known is None else {**scores, **metrics.with_targets(known, clusters)}


def _publish_files(work: Work, folder: Path) -> dict[str, Any]:
    """Complete model.json, put every file under the attempt's prefix, and list them."""
    head = json.loads((folder / "model.json").read_text())
    head["seed"] = work.job.seed
    head["dataset"] = {"id": work.dataset.id, "name": work.dataset.name, "n_images": work.dataset.n_images}
    head["versions"] = {name: version(name) for name in VERSIONS}
    head["files"] = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.suffix != ".json"
    }
    (folder / "model.json").write_text(json.dumps(head, indent=1))
    artifacts = {}
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        work.blobs.put(f"{work.prefix}/{path.name}", data)
        artifacts[path.name] = {
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "media_type": MEDIA_TYPES[path.suffix],
        }
    return artifacts
