"""The BentoML service of `benchmarks.rivals`; needs bentoml, so only its own interpreter imports this."""

import os
from typing import Any

import bentoml
import numpy as np

from benchmarks.rivals import GRAPH, MAX_BATCH, Graph, decode


@bentoml.service(workers=1, traffic={"timeout": 60})
class Assign:
    """One worker, one graph."""

    def __init__(self) -> None:
        self.graph = Graph(os.environ[GRAPH])

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=1000)
    def assign(self, images: list[str]) -> list[dict[str, Any]]:
        """Pictures in base64 -> cluster and confidence of each."""
        return self.graph.assign(np.stack([decode(image) for image in images]))
