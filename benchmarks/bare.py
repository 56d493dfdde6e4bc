"""`python -m benchmarks.bare FILE KIND SECONDS`: what the hardware does without a service, in images a second.

`decode`: PNG files decoded by the one image rule, run in batches of 64; `array`: batches of 64 ready pixels; `one`: a
PNG at a time. One thread, the session's options as the service has them.
"""

import sys
import time
from pathlib import Path

import numpy as np

from app.inference.served import CHUNK, ServedModel
from benchmarks.inference import SIDE, SPEC
from benchmarks.published import draw_pictures
from models import pixels


def main(graph: Path, kind: str, seconds: float) -> float:
    """Images a second."""
    model = ServedModel(graph.read_bytes(), SPEC)
    session, name = model._session, model._input
    files = draw_pictures(512, SIDE)
    ready = np.random.default_rng(0).integers(0, 255, (CHUNK, 1, 28, 28), np.uint8)
    n_done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        if kind == "array":
            batch = ready
        else:
            chosen = files[n_done % 512 :][: CHUNK if kind == "decode" else 1]
            batch = np.stack([pixels.decode(data, SPEC) for data in chosen])
        session.run(["probabilities"], {name: batch})[0].argmax(axis=1)
        n_done += len(batch)
    return n_done / (time.perf_counter() - begun)


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
