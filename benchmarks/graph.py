"""`python -m benchmarks.graph FILE`: the ONNX graph that the inference benchmarks serve."""

import sys
from pathlib import Path

import numpy as np

from models import registry
from models.export import export_onnx
from models.pixels import InputSpec


def main(path: Path) -> None:
    """Export `depict`'s network for 28 x 28 images and ten clusters, its weights as drawn."""
    spec = registry.get("depict")
    model = spec.load()(spec.make_config("fast", {"n_clusters": 10}), InputSpec("images", side=28, channels=1))
    x = np.random.default_rng(0).integers(0, 255, (64, 1, 28, 28), np.uint8)
    model.graph.eval().requires_grad_(False)
    model._summarise(x)
    export_onnx(model, path, x)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
