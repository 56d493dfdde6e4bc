"""Quality of a method on a file of images: fits through the library, then scores against targets it never saw."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from models import metrics, pixels, registry
from models.base import Run
from models.pixels import InputSpec, choose_side


def main(
    data: Annotated[Path, typer.Option(help=".npz with `x` (images or vectors) and `y`")],
    method: Annotated[str, typer.Option(help="name of a method")] = registry.DEFAULT_METHOD,
    profile: Annotated[str | None, typer.Option(help="by default the method's own choice")] = None,
    seed: int = 0,
    clusters: Annotated[int | None, typer.Option(help="K; by default the number of targets")] = None,
    config: Annotated[str, typer.Option(help="JSON of further config fields")] = "{}",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on the last line")] = False,
) -> None:
    """Fit, assign and score one method on one file with one seed."""
    found = measure(data, method, profile, seed, {"n_clusters": clusters, **json.loads(config)})
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:>10}  {value:.4f}" if isinstance(value, float) else f"{name:>10}  {value}")


def measure(data: Path, method: str, profile: str | None, seed: int, values: dict[str, Any]) -> dict[str, Any]:
    """One fit: its scores, seconds from pixels to model, and the process's peak memory in MB."""
    with np.load(data, allow_pickle=False) as archive:
        raw, targets = archive["x"], archive["y"]
    spec = registry.get(method)
    profile = profile or spec.default_profile
    values["n_clusters"] = values["n_clusters"] or len(np.unique(targets[targets >= 0]))
    settings = spec.make_config(profile, values)
    x, input_spec = as_inputs(raw, settings.image_side)
    model = spec.load()(settings, input_spec)
    model.profile = profile
    started = time.perf_counter()
    model.fit(x, Run(seed=seed))
    seconds = time.perf_counter() - started
    return {
        **metrics.with_targets(targets, model.predict(x)),
        "seconds": round(seconds, 2),
        "peak_mb": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 2**20)
        ),
        "method": method,
        "profile": profile,
        "seed": seed,
        "n_images": len(x),
        "n_clusters": settings.n_clusters,
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
