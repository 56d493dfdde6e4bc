"""Other servers of the same graph behind the same decode, for `benchmarks inference --litserve` and `--bentoml`.

Run by interpreters of environments of their own, with litserve or bentoml, numpy, onnxruntime and Pillow; neither is a
dependency of ours. Batching is on, their defaults otherwise. Both take JSON, so pictures come as base64.
`python -m benchmarks.rivals litserve|bentoml GRAPH PORT`
"""

import base64
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from models import pixels
from models.pixels import InputSpec

SPEC = InputSpec("images", side=28, channels=1)
MAX_BATCH, WAIT_S = 64, 0.005
GRAPH = "RIVALS_GRAPH"


class Graph:
    """The graph on one thread, as ours runs it."""

    def __init__(self, path: str) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(Path(path).read_bytes(), options, providers=["CPUExecutionProvider"])

    def assign(self, batch: np.ndarray) -> list[dict[str, Any]]:
        """uint8 (N, C, S, S) -> cluster and confidence of each."""
        probabilities, is_outlier = self._session.run(["probabilities", "is_outlier"], {"inputs": batch})
        clusters, best = probabilities.argmax(axis=1), probabilities.max(axis=1)
        columns = zip(clusters.tolist(), best.tolist(), is_outlier.tolist(), strict=True)
        return [{"cluster": k, "confidence": p, "is_outlier": o} for k, p, o in columns]


def decode(picture: str) -> np.ndarray:
    """A picture in base64 -> uint8 (1, S, S)."""
    return pixels.decode(base64.b64decode(picture), SPEC)


def main(name: str, graph: str, port: str) -> None:
    """Serve the graph with one of them, until killed."""
    os.environ[GRAPH] = graph
    if name == "litserve":
        from benchmarks import lit

        lit.serve(int(port))
    else:  # its command takes this process's place
        command = ["bentoml", "serve", "benchmarks.bento:Assign", "--host", "127.0.0.1", "--port", port]
        os.execv(sys.executable, [sys.executable, "-m", *command])


if __name__ == "__main__":
    main(*sys.argv[1:])
