"""Train: a dataset and a config become a model, its clusters and its assignment set."""

import hashlib
import warnings
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app.inference.nearest_images import NearestImages, n_kept
from app.inference.served import ServedModel
from app.store import assignment_files
from app.store.model_files import CALIBRATION_NAME, HISTORY_NAME, NEIGHBOURS_NAME
from app.store.results import Artifact, ModelFacts, Scores, TrainResult
from models import registry
from models.base import Clusterer, Run
from models.export import export_onnx
from models.start.graph import RULE_VERSION
from workers import bulk, inputs, pictures, remarks
from workers.curves import Curves
from workers.kept import DatasetStarts, JobCheckpoints
from workers.work import Span, Work

LOAD, FIT, ASSIGN = Span(0.0, 0.1), Span(0.1, 0.85), Span(0.9, 0.98)
MEDIA_TYPES = {
    ".onnx": "application/octet-stream",
    ".safetensors": "application/octet-stream",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".npz": "application/x-npz",
    ".png": "image/png",
}
VERSIONS = ("torch", "scikit-learn", "numpy", "pillow", "onnxruntime")


def run(work: Work) -> TrainResult:
    """Fit, export, assign, score, draw."""
    spec = registry.get(work.job.method or "")
    config = spec.config(**work.job.config)
    input_spec = inputs.choose_spec(work.dataset, config)
    work.report.phase("load", LOAD.start)
    x = inputs.load(work, input_spec, LOAD)
    targets = bulk.targets(work)

    model: Clusterer = spec.load()(config, input_spec)
    model.profile = work.job.profile or "paper"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with warnings.catch_warnings(record=True) as caught:
        curves = _fit(work, model, x, targets, device)

    folder = work.scratch / "model"
    folder.mkdir()
    served = _export(work, model, x, folder, device)
    work.report.phase("assign", ASSIGN.start)
    pieces = (x[at : at + inputs.BLOCK] for at in range(0, len(x), inputs.BLOCK))
    assignments = bulk.assign_all(work, served, pieces, len(x), ASSIGN)
    with model.on(device):
        scores: Scores = {**_scores(model, x, assignments.cluster, targets), **curves.start_scores()}
    work.report.phase("draw", ASSIGN.stop)
    (folder / HISTORY_NAME).write_bytes(curves.parquet())
    _draw(work, model, x, assignments.cluster, folder, device=device)
    work.report.phase("publish", 0.99)
    model.save(folder, _provenance(work))
    written = assignment_files.write(work.blobs, work.prefix, assignments, config.n_clusters)
    facts = ModelFacts(
        config=asdict(config),
        known=work.job.known,
        n_clusters=config.n_clusters,
        n_images=len(x),
        input_spec=asdict(input_spec),
        scores=scores,
        artifacts=_publish_files(work, folder),
    )
    told = [asdict(one) for one in remarks.of(work.dataset, model, written.clusters, caught)]
    summary = bulk.summary(written, scores)
    return TrainResult(model=facts, assignment_set=summary, clusters=written.clusters, warnings=told)


def _fit(work: Work, model: Clusterer, x: NDArray[Any], targets: NDArray[np.int64] | None, device: str) -> Curves:
    """Fit with events, checkpoints and the dataset's stored starts; returns the learning curves."""
    curves = Curves(work.report, FIT, targets)
    checkpoints = JobCheckpoints(work, device, lambda: {"epochs": curves.epochs})
    if checkpoints.are_skipped:
        work.report.step(FIT.start, is_due=True, event="checkpoint_skipped")
    curves.go_on_from(checkpoints.resumed_extra.get("epochs", []))
    circumstances = Run(
        seed=work.job.seed,
        device=device,
        on_step=curves.on_step,
        batch_scale=work.job.batch_scale,
        memory_share=work.settings.device_memory_share,
        checkpoints=checkpoints,
        starts=DatasetStarts(work),
    )
    model.fit(x, circumstances, {int(index): target for index, target in work.job.known.items()})
    return curves


def _export(work: Work, model: Clusterer, x: NDArray[Any], folder: Path, device: str) -> ServedModel:
    """The model as it will be served; writes its graph and calibration, and the embeddings for nearest images."""
    work.report.phase("export", FIT.stop)
    export_onnx(model, folder / "model.onnx", x)
    with model.on(device):
        return _calibrated(work, model, (folder / "model.onnx").read_bytes(), x, folder)


def _calibrated(work: Work, model: Clusterer, graph: bytes, x: NDArray[Any], folder: Path) -> ServedModel:
    """The model as it will be served, calibrated; writes the calibration, and the embeddings for nearest images."""
    bare = ServedModel(graph, model.spec, torch.get_num_threads())

    def assign(inputs: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        assigned = bare.assign(inputs)
        return assigned.cluster, assigned.confidence

    from models.worth import stability  # slow to import, and the first step must not wait for it

    slope, offset = stability.fit(*stability.measure(assign, x, work.job.seed))
    calibration = replace(model.calibration, slope=slope, offset=offset)
    (folder / CALIBRATION_NAME).write_bytes(calibration.to_bytes())
    width = model.embed(x[:1]).shape[1]
    index = np.sort(np.random.default_rng(work.job.seed).permutation(len(x))[: n_kept(len(x), width)])
    (folder / NEIGHBOURS_NAME).write_bytes(NearestImages(index, model.embed(x[index])).to_bytes())
    return ServedModel(graph, model.spec, torch.get_num_threads(), calibration)


def _draw(
    work: Work, model: Clusterer, x: NDArray[Any], clusters: NDArray[np.int32], folder: Path, *, device: str
) -> None:
    """Sheets of the clusters, and the map."""
    pictures.draw(model, x, clusters, folder)
    with model.on(device):
        pictures.write_map_file(work, model, x, clusters, folder)


def _scores(
    model: Clusterer, x: NDArray[Any], clusters: NDArray[np.int32], targets: NDArray[np.int64] | None
) -> Scores:
    from models.worth import metrics  # as above

    sizes = np.bincount(clusters, minlength=model.config.n_clusters)
    sample = np.sort(np.random.default_rng(0).permutation(len(x))[: metrics.SILHOUETTE_SAMPLE])
    scores: Scores = {
        "uniformity": metrics.uniformity(sizes),
        "silhouette": metrics.silhouette(model.embed(x[sample]), clusters[sample]),
    }
    return scores if targets is None else {**scores, **metrics.with_targets(targets, clusters)}


def _provenance(work: Work) -> dict[str, Any]:
    """What `model.json` tells of where a model comes from."""
    return {
        "seed": work.job.seed,
        "known": work.job.known,
        "dataset": {"id": work.dataset.id, "name": work.dataset.name, "n_images": work.dataset.n_images},
        "versions": {name: version(name) for name in VERSIONS} | {"start_rule": str(RULE_VERSION)},
    }


def _publish_files(work: Work, folder: Path) -> dict[str, Artifact]:
    """Put every file of the model under the attempt's prefix, and list them."""
    artifacts = {}
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        work.blobs.put(f"{work.prefix}/{path.name}", data)
        sha256 = hashlib.sha256(data).hexdigest()
        artifacts[path.name] = Artifact(bytes=len(data), sha256=sha256, media_type=MEDIA_TYPES[path.suffix])
    return artifacts
