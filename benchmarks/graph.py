"""`python -m benchmarks.graph KIND FILE`: the ONNX graphs that the speed benchmarks serve.

`images`: `depict`'s network at 28 x 28 with ten clusters, its weights as drawn; `vectors`: `kmeans` with 1,000 centers
of 64 numbers, drawn. Speed does not depend on what was learned.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from models import registry
from models.base import Run
from models.export import export_onnx
from models.pixels import InputSpec

K_VECTORS, N_FEATURES = 1000, 64


def main(kind: str, path: Path) -> None:
    """Export one of the graphs."""
    rng = np.random.default_rng(0)
    if kind == "images":
        spec, config, input_spec = registry.get("depict"), {"n_clusters": 10}, InputSpec("images", side=28, channels=1)
        x = rng.integers(0, 255, (64, 1, 28, 28), np.uint8)
        model = spec.load()(spec.make_config("fast", config), input_spec)
    else:
        spec, config = registry.get("kmeans"), {"n_clusters": K_VECTORS}
        x = rng.normal(size=(2000, N_FEATURES)).astype(np.float32)
        model = spec.load()(spec.make_config("paper", config), InputSpec("vectors", n_features=N_FEATURES))
        model.network.head.take(torch.from_numpy(x[:K_VECTORS]), 1.0)
    model.serving_graph.eval().requires_grad_(False)
    model._summarise(x, Run())
    export_onnx(model, path, x)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
