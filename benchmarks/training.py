"""Speed of training: our loop against the same steps written by hand, and the time per image as data grow."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from benchmarks.hardware import choose_device, wait_for
from benchmarks.quality import as_inputs
from models import registry
from models.base import BATCH, Run
from models.methods.dcae.fast import Hold
from models.methods.dcae.method import DCAE, clustering_error, reconstruction_error
from models.parts.augment import shift_and_rotate
from models.parts.encoders import at_least
from models.training.trainer import Schedule, train

Images = NDArray[np.uint8]
Epoch = Callable[[DCAE, Images, str], None]  # on a device; it returns when the device is done


def main(
    data: Annotated[Path, typer.Option(help=".npz with `x`: images")],
    method: Annotated[str, typer.Option(help="a deep method")] = "dcae",
    images: Annotated[int, typer.Option(help="rows of the comparison with the loop written by hand")] = 10_000,
    grow_to: Annotated[int, typer.Option(help="rows of the largest set")] = 70_000,
    rounds: int = 3,
    device: Annotated[str | None, typer.Option(help="`cuda` or `cpu`; by default `cuda` where there is one")] = None,
) -> None:
    """Print seconds of an epoch, interleaved, as medians: ours, by hand, and of ever more images."""
    with np.load(data) as archive:
        x, spec = as_inputs(archive["x"][:grow_to], None)
    config = registry.get(method).make_config("fast", {"n_clusters": 10})
    ours, by_hand = EPOCHS[method]
    where = choose_device(device)
    measured = {"method": method, "device": where}

    def epoch_of(run: Epoch, size: int) -> Callable[[], None]:
        return lambda: run(registry.get(method).load()(config, spec), x[:size], where)

    times = _interleaved({"ours_s": epoch_of(ours, images), "by_hand_s": epoch_of(by_hand, images)}, rounds)
    print(json.dumps({**measured, "images": images, **times, "ratio": times["ours_s"] / times["by_hand_s"]}))
    sizes = [size for size in (10_000, 20_000, 40_000, grow_to) if size <= len(x)]
    grown = _interleaved({str(size): epoch_of(ours, size) for size in sizes}, rounds)
    a_image = {size: seconds / int(size) * 1e6 for size, seconds in grown.items()}
    growth = a_image[str(sizes[-1])] / a_image[str(sizes[0])]
    print(json.dumps({**measured, "us_an_image": {k: round(v, 1) for k, v in a_image.items()}, "growth": growth}))


def _interleaved(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Medians over rounds; a first run of the first, which pays for what libraries load late, does not count."""
    next(iter(runs.values()))()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _dcae(model: DCAE, x: Images, device: str) -> None:
    """One epoch of the phase that holds a partition, through the trainer."""
    partition = torch.arange(len(x), device=device) % model.config.n_clusters
    train(Hold(model, x, Run(device=device), partition), Schedule("hold", 1, model.config.batch_size))
    wait_for(device)


def _dcae_by_hand(model: DCAE, x: Images, device: str) -> None:
    """The same steps as anyone would write them down."""
    config, network = model.config, model.network.to(device)
    labels = torch.arange(len(x), device=device) % config.n_clusters
    anchors = torch.randint(0, 2, (config.n_clusters, network.n_units), device=device).float()
    optimizer = torch.optim.Adam(network.parameters(), config.learning_rate)
    order = torch.randperm(len(x))
    network.train()
    for start in range(0, len(x), config.batch_size):
        index = order[start : start + config.batch_size]
        clean = at_least(torch.from_numpy(x[index.numpy()]).to(device).float() / 255, network.side)
        h = network.encoder(shift_and_rotate(clean, config.shift, config.rotation_degrees))
        loss = reconstruction_error(network.decoder(h), clean, "mean")
        loss = loss + clustering_error(h, anchors[labels[index.to(device)]], config.anchor_weight)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    network.eval()
    with torch.no_grad():
        for start in range(0, len(x), BATCH):
            network.embed(torch.from_numpy(x[start : start + BATCH]).to(device).float() / 255)
    wait_for(device)


EPOCHS: dict[str, tuple[Epoch, Epoch]] = {"dcae": (_dcae, _dcae_by_hand)}
