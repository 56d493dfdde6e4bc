"""The LitServe server of `benchmarks.rivals`; needs litserve, so only its own interpreter imports this."""

import os
from typing import Any

import litserve as ls
import numpy as np

from benchmarks.rivals import GRAPH, MAX_BATCH, WAIT_S, Graph, decode


class Assign(ls.LitAPI):
    """Its five hooks."""

    def setup(self, _device: str) -> None:
        """Load the graph."""
        self.graph = Graph(os.environ[GRAPH])

    def decode_request(self, request: dict[str, str]) -> np.ndarray:
        """JSON -> pixels."""
        return decode(request["image"])

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Pixels of several requests -> one array."""
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> list[dict[str, Any]]:
        """Run the graph."""
        return self.graph.assign(x)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One answer a request."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Sent as JSON."""
        return output


def serve(port: int) -> None:
    """Run until killed."""
    server = ls.LitServer(Assign(max_batch_size=MAX_BATCH, batch_timeout=WAIT_S), accelerator="cpu")
    server.run(port=port, host="127.0.0.1", generate_client_file=False, log_level="warning")
