"""`clusterserve demo`: the main job over HTTP, on scikit-learn's real handwritten digits."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console

from clusterserve.cli import assignments_table, clusters_table, follow
from clusterserve.client import Client, Json

N_NEW = 12
N_CLUSTERS = 10
TILE, GAP = 40, 4


def run_demo(out: Path, console: Console) -> None:
    """Start a service, upload, train, look, assign new images, draw the picture."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images * (255 / 16)).astype(np.uint8)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, _service(Path(folder) / "data", console) as client:
        file = Path(folder) / "digits.npz"
        np.savez(file, x=images[:-N_NEW], y=digits.target[:-N_NEW])
        console.print(f"\nUploading {len(images) - N_NEW} images of handwritten digits")
        dataset = client.upload(file, "digits")
        _require(follow(client, dataset["job_id"]))

        console.print("\nTraining: the default method looks for 10 clusters; it never sees what the digits are")
        job = client.train(dataset["id"], None, N_CLUSTERS)
        job = _require(follow(client, job["id"]))
        clusters = client.clusters(job["model_id"])
        console.print(clusters_table(clusters))
        scores = client.model(job["model_id"])["scores"]
        console.print(
            "Against the true digits: "
            + ", ".join(f"{name.upper()} {scores[name]:.3f}" for name in ("acc", "nmi", "ari"))
        )

        console.print(f"\nCluster ids of {N_NEW} images it has never seen")
        new = [
            (f"a {digit}", _png(image)) for digit, image in zip(digits.target[-N_NEW:], images[-N_NEW:], strict=True)
        ]
        answers = client.assign(job["model_id"], new)
        console.print(assignments_table(answers))

        picture = out / "clusters.png"
        contact_sheet(client, dataset["id"], clusters).save(picture)
        console.print(f"\nEach cluster's surest and least certain images: {picture}")


def contact_sheet(client: Client, dataset_id: str, clusters: list[Json]) -> Image.Image:
    """A row per cluster: its size, its surest images, and on the right those it is least certain of."""
    n_columns = max(len(cluster["exemplars"]) + len(cluster["least_certain"]) for cluster in clusters)
    left, top, middle = 90, 30, 20
    width = left + n_columns * (TILE + GAP) + middle + GAP
    sheet = Image.new("RGB", (width, top + len(clusters) * (TILE + GAP) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((left, 8), "surest", "black", font_size=14)
    half = max(len(cluster["exemplars"]) for cluster in clusters)
    draw.text((left + half * (TILE + GAP) + middle, 8), "least certain", "black", font_size=14)
    for row, cluster in enumerate(clusters):
        y = top + row * (TILE + GAP)
        draw.text((6, y + 4), f"cluster {cluster['cluster']}", "black", font_size=13)
        draw.text((6, y + 20), f"{cluster['size']} images", "gray", font_size=12)
        for column, index in enumerate(cluster["exemplars"]):
            sheet.paste(_tile(client.image(dataset_id, index)), (left + column * (TILE + GAP), y))
        for column, index in enumerate(cluster["least_certain"]):
            x = left + (half + column) * (TILE + GAP) + middle
            sheet.paste(_tile(client.image(dataset_id, index)), (x, y))
    return sheet


@contextlib.contextmanager
def _service(data_dir: Path, console: Console) -> Iterator[Client]:
    """A whole service of our own, on a free port, ended with the demo."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "clusterserve", "up", "--data-dir", str(data_dir), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"CLUSTERSERVE_LOG_LEVEL": "ERROR"})
    client = Client(f"http://127.0.0.1:{port}")
    try:
        with console.status("Starting the service (Valkey, API, workers)"):
            deadline = time.monotonic() + 60
            while not client.is_ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the service did not start; see {data_dir / 'logs'}")
                time.sleep(0.1)
        console.print("The service is up: Valkey, the API and two workers")
        yield client
    finally:
        client.close()
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _require(job: Json) -> Json:
    if job["state"] != "succeeded":
        raise RuntimeError(f"job {job['id']} {job['state']}: {job['error']}")
    return job


def _tile(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image.thumbnail((TILE, TILE))
    return image.resize((TILE, TILE), Image.Resampling.NEAREST) if image.width < TILE else image


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
