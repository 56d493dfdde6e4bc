"""Quality of a method on a file of images: fits through the library, then scores against targets it never saw."""

import json
import resource
import sys
import time
import zlib
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from benchmarks import results_page, suite
from benchmarks.hardware import choose_device
from benchmarks.starts import KeptStarts
from models import pixels, registry
from models.base import Clusterer, Run, StepState
from models.parts.known import match_known
from models.pixels import InputSpec, choose_side
from models.registry import DEFAULT_METHOD
from models.worth import metrics


def main(
    data: Annotated[Path, typer.Option(help=".npz with `x` (images or vectors) and `y`; a folder of them for --suite")],
    method: Annotated[str, typer.Option(help="name of a method, several with commas for --suite")] = DEFAULT_METHOD,
    profile: Annotated[str | None, typer.Option(help="by default the method's own choice")] = None,
    seed: Annotated[str, typer.Option(help="a number, several with commas for --suite")] = "0",
    clusters: Annotated[int | None, typer.Option(help="K; by default the number of targets")] = None,
    config: Annotated[str, typer.Option(help="JSON of further config fields")] = "{}",
    known: Annotated[int, typer.Option(help="targets told, of images of the training part; the rest is held out")] = 0,
    starts: Annotated[Path | None, typer.Option(help="a folder that keeps neighbour-graph starts")] = None,
    device: Annotated[str | None, typer.Option(help="`cuda` or `cpu`; by default `cuda` where there is one")] = None,
    is_suite: Annotated[bool, typer.Option("--suite", help="methods x data sets x seeds")] = False,
    datasets: Annotated[str, typer.Option(help="of a suite, with commas")] = ",".join(results_page.TITLES),
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on the last line")] = False,
) -> None:
    """Fit, assign and score one method on one file with one seed; or, as a suite, all that are named on all files.

    A suite goes on where it was stopped, keeps its runs in benchmarks/results.jsonl and writes docs/results.md.
    """
    values = json.loads(config)
    if is_suite:
        for dataset, one_seed, name in product(datasets.split(","), map(int, seed.split(",")), method.split(",")):
            chosen = profile or registry.get(name).default_profile
            suite.run(data, suite.Case(dataset, name, chosen, one_seed, known, values), device)
        return
    circumstances = Circumstances(int(seed), starts, known, choose_device(device))
    found = measure(data, method, profile, circumstances, {"n_clusters": clusters, **values})
    if as_json:
        print(json.dumps(found))
        return
    for epoch in found.pop("curve"):
        print(json.dumps(epoch))
    for name, value in found.items():
        print(f"{name:>10}  {value:.4f}" if isinstance(value, float) else f"{name:>10}  {value}")


@dataclass(frozen=True)
class Circumstances:
    """The seed of a fit, where starts are kept, how many targets of the training part are told, and the device."""

    seed: int = 0
    starts: Path | None = None
    n_known: int = 0
    device: str = "cpu"


def measure(
    data: Path, method: str, profile: str | None, circumstances: Circumstances, values: dict[str, Any]
) -> dict[str, Any]:
    """One fit: its scores and its start's, seconds from pixels to model (a kept start's too), peak memory in MB.

    With known targets only the training part (`n_train` of the file) is fitted, and the error on the rest is told too.
    """
    with np.load(data, allow_pickle=False) as archive:
        raw, targets = archive["x"], archive["y"]
        n_fitted = int(archive["n_train"]) if circumstances.n_known else len(raw)
    spec = registry.get(method)
    profile = profile or spec.default_profile
    values["n_clusters"] = values["n_clusters"] or len(np.unique(targets[targets >= 0]))
    settings = spec.make_config(profile, values)
    x, input_spec = as_inputs(raw, settings.image_side)
    model: Clusterer = spec.load()(settings, input_spec)
    model.profile = profile
    found = _fit(model, x[:n_fitted], targets[:n_fitted], circumstances, data.stem)
    if n_fitted < len(x):
        found["held_out_error"] = _held_out_error(model, x, targets, n_fitted)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 2**20)
    return {
        **found,
        "peak_mb": round(peak),
        "method": method,
        "profile": profile,
        "seed": circumstances.seed,
        "device": circumstances.device,
        "n_images": n_fitted,
        "n_known": circumstances.n_known,
        "n_clusters": settings.n_clusters,
    }


def _held_out_error(model: Clusterer, x: NDArray[Any], targets: NDArray[Any], n_fitted: int) -> float:
    """Share of the rest that is not in the cluster which the known images of its target are in."""
    rows = list(model.known)
    clusters = model.predict(x[rows])
    matched = match_known(
        clusters, {place: model.known[row] for place, row in enumerate(rows)}, model.config.n_clusters
    )
    of_target = {model.known[rows[place]]: cluster for place, cluster in matched.items()}
    expected = np.array([of_target.get(int(target), -1) for target in targets[n_fitted:]])
    return float((expected != model.predict(x[n_fitted:])).mean())


def _fit(
    model: Clusterer, x: NDArray[Any], targets: NDArray[Any], circumstances: Circumstances, name: str
) -> dict[str, Any]:
    """Fit and score; the curve holds every epoch's accuracy, of which the fit knows nothing."""
    rows = np.random.default_rng(circumstances.seed).permutation(len(x))[: circumstances.n_known]
    known = {int(row): int(targets[row]) for row in rows}
    content = zlib.crc32(np.ascontiguousarray(x[:1_000]).tobytes())
    folder = circumstances.starts and circumstances.starts / f"{name}-{len(x)}-{content:08x}"
    starts = None if folder is None else KeptStarts(folder)
    curve: list[dict[str, Any]] = []

    def keep(state: StepState) -> None:
        if state.is_epoch:
            scores = {} if state.assignments is None else {"acc": metrics.acc(targets, state.assignments)}
            curve.append({"phase": state.phase, "epoch": state.step, "losses": dict(state.losses), **scores})

    started = time.perf_counter()
    model.fit(x, Run(seed=circumstances.seed, device=circumstances.device, on_step=keep, starts=starts), known)
    seconds = time.perf_counter() - started + (starts.saved_s if starts else 0)
    others = np.setdiff1d(np.arange(len(x)), rows)  # what was told is no achievement
    return {
        **metrics.with_targets(targets[others], model.predict(x)[others]),
        "seconds": round(seconds, 2),
        "start_acc": next((epoch["acc"] for epoch in curve if epoch["epoch"] == 0), None),
        "curve": curve,
    }


def as_inputs(raw: NDArray[Any], image_side: int | None) -> tuple[NDArray[Any], InputSpec]:
    """Images (N, H, W[, 3]) or vectors (N, D) as the service would hand them to a model."""
    if raw.ndim == 2:
        return raw.astype(np.float32), InputSpec("vectors", n_features=raw.shape[1])
    channels = 1 if raw.ndim == 3 else 3
    spec = InputSpec("images", side=choose_side(raw.shape[2], raw.shape[1], image_side), channels=channels)
    x = np.empty((len(raw), *spec.shape), dtype=np.uint8)
    for index, image in enumerate(raw):
        x[index] = pixels.to_pixels(Image.fromarray(image), spec)
    return x, spec
