"""`docs/results.md` from measured runs: a table for each data set, curves of shortened recipes, told targets."""

import json
import statistics
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Result = dict[str, Any]
TITLES = {
    "mnist": "MNIST, 70,000 digits of 28 x 28",
    "usps": "USPS, 9,298 digits of 16 x 16",
    "fashion_mnist": "Fashion-MNIST, 70,000 pictures of 28 x 28",
    "coil20": "COIL-20, 1,440 pictures of 128 x 128",
    "orl32": "ORL, 400 faces of 32 x 32",
    "artifact_mnist": "Artifact-MNIST, 70,000 digits whose first pixel is .1, .5 or .9",
}
# ACC as the papers give it; where it is of another set than ours, the note says which.
PUBLISHED = {
    ("depict", "mnist"): ".965",
    ("depict", "mnist_test"): ".963",  # the last 10,000 rows
    ("depict", "usps"): ".964 (a balanced set of 11,000)",
    ("dcae", "mnist"): ".921 (part not said)",
    ("adaptive-gmm", "mnist"): ".987",
    ("adaptive-gmm", "usps"): ".985 (a balanced set of 11,000)",
    ("adaptive-gmm", "fashion_mnist"): ".635",
    ("adaptive-gmm", "coil20"): ".946",
    ("dual-autoencoder", "mnist"): ".978",
    ("dual-autoencoder", "mnist_test"): ".980",
    ("dual-autoencoder", "usps"): ".869",
    ("dual-autoencoder", "fashion_mnist"): ".662",
    ("precise-feature", "mnist"): ".958 (scored on the test part)",
    ("precise-feature", "fashion_mnist"): ".721 (scored on the test part)",
    ("precise-feature", "artifact_mnist"): "1.0",
}
HEAD = """# Results

Written by `python -m benchmarks quality --suite`, which measured every figure. ACC is the share of images right under
the best map of clusters to classes, over all images at once; no fit sees a class. A cell is the median over seeds, with
the lowest and the highest. *Start* is the partition that a run goes on from; **below** marks a median that ends more
than .003 under it: such a run's start is the better answer. Seconds are from stored pixels to the fitted model, the
start included. *Published* is the figure of the method's own paper, not ours.
"""
SHORTENED = """
## The papers' recipes, shortened

The `paper` profile with a smaller schedule: not the papers' figures, but whether each method's clustering improves on
its own start. ACC of every epoch from the start on, the dotted line.
"""
KNOWN = """
## With known targets

Semi-supervised `depict`: some images of the training part of MNIST are told, the error is that on the test part, which
the fit does not see. Published, of the paper's own recipe: 2.10 % with 1,000 targets.

| method | profile | known | error | seconds | seeds | commit |
|---|---|---|---|---|---|---|
"""


def render(results: Iterable[Result], notes: str = "") -> str:
    """The runs as Markdown; `notes` end it, written by hand."""
    runs = list(results)
    told = [one for one in runs if one.get("n_known")]
    short = [one for one in runs if _has_curve(one)]
    plain = [one for one in runs if not one.get("n_known") and not one.get("config")]
    parts = [HEAD, *(_table(dataset, cells) for dataset, cells in _grouped(plain).items())]
    if short:
        parts += [SHORTENED, *(_curve(one) for one in short)]
    if told:
        cells = _grouped(told).values()
        parts.append(KNOWN + "\n".join(_told(group) for cell in cells for group in cell.values()) + "\n")
    return "\n".join([*parts, notes]).rstrip() + "\n"


def draw_curves(results: Iterable[Result], folder: Path) -> None:
    """A picture of every run of a paper's recipe that has none yet."""
    import matplotlib as mpl  # only who writes the page needs it
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "clusterserve"  # the same run, the same file
    for one in results:
        path = folder / picture(one)
        if not _has_curve(one) or path.exists():
            continue
        folder.mkdir(exist_ok=True)
        epochs = [epoch for epoch in one["curve"] if epoch.get("acc") is not None]
        figure = Figure(figsize=(6, 2.6), layout="constrained")
        axes = figure.add_subplot(xlabel="epoch with clusters", ylabel="ACC")
        axes.plot([epoch["acc"] for epoch in epochs], marker="." if len(epochs) < 80 else None)
        axes.axhline(one["start_acc"] or epochs[0]["acc"], linestyle=":", color="gray", label="start")
        axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})


def picture(result: Result) -> str:
    """The file name of a run's curve, which tells runs of other configs apart."""
    config = result.get("config")
    schedule = f"{zlib.crc32(json.dumps(config, sort_keys=True).encode()):08x}" if config else "full"
    return f"{result['method']}-{result['profile']}-{result['dataset']}-{result['seed']}-{schedule}.svg"


def _has_curve(one: Result) -> bool:
    """Whether a run is of a paper's recipe, shortened or not, that goes on from a partition."""
    is_long = sum(epoch.get("acc") is not None for epoch in one.get("curve", [])) > 1
    return bool(one.get("config")) or (one["profile"] == "paper" and is_long)


def _grouped(runs: list[Result]) -> dict[str, dict[tuple[str, str], list[Result]]]:
    by_set: dict[str, dict[tuple[str, str], list[Result]]] = {}
    for result in runs:
        by_set.setdefault(result["dataset"], {}).setdefault((result["method"], result["profile"]), []).append(result)
    return {name: by_set[name] for name in sorted(by_set, key=lambda name: ([*TITLES, name].index(name), name))}


def _table(dataset: str, cells: dict[tuple[str, str], list[Result]]) -> str:
    ordered = sorted(cells.items(), key=lambda cell: -statistics.median(one["acc"] for one in cell[1]))
    return "\n".join(
        [
            f"\n## {TITLES.get(dataset, dataset)}\n",
            "| method | profile | ACC | NMI | start's ACC | seconds | peak GB | seeds | commit | published |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *(_line(dataset, method, profile, runs) for (method, profile), runs in ordered),
        ]
    )


def _line(dataset: str, method: str, profile: str, runs: Sequence[Result]) -> str:
    starts = [one["start_acc"] for one in runs if one.get("start_acc") is not None]
    acc = statistics.median(one["acc"] for one in runs)
    mark = " **below**" if starts and acc < statistics.median(starts) - 0.003 else ""
    peak = max(one["peak_mb"] for one in runs) / 1000
    cells = (
        f"`{method}`", profile, _range([one["acc"] for one in runs]) + mark, _range([one["nmi"] for one in runs]),
        _range(starts) if starts else "–", _seconds(runs), f"{peak:.1f}", str(len(runs)), _commits(runs),
        PUBLISHED.get((method, dataset), "–"),
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _curve(one: Result) -> str:
    changes = ", ".join(f"`{name}` {value}" for name, value in one["config"].items()) or "the whole schedule"
    best = max(epoch["acc"] for epoch in one["curve"] if epoch.get("acc") is not None)
    start = "no start of its own" if one["start_acc"] is None else f"start {_short(one['start_acc'])}"
    return (
        f"\n**`{one['method']}` on {TITLES.get(one['dataset'], one['dataset'])}**: {start}, best {_short(best)}, "
        f"end {_short(one['acc'])}, {round(one['seconds'])} s; {changes}; seed {one['seed']}, "
        f"commit {one['commit']}.\n\n"
        f"![ACC by epoch](results/{picture(one)})"
    )


def _told(runs: Sequence[Result]) -> str:
    errors = [100 * one["held_out_error"] for one in runs]
    error = f"{statistics.median(errors):.2f} % ({min(errors):.2f}–{max(errors):.2f})"
    known = str(runs[0]["n_known"])
    cells = (f"`{runs[0]['method']}`", runs[0]["profile"], known, error, _seconds(runs), str(len(runs)), _commits(runs))
    return "| " + " | ".join(cells) + " |"


def _seconds(runs: Sequence[Result]) -> str:
    return str(round(statistics.median(one["seconds"] for one in runs)))


def _commits(runs: Sequence[Result]) -> str:
    return ", ".join(sorted({one["commit"] for one in runs}))


def _range(values: Sequence[float]) -> str:
    if len(values) == 1:
        return _short(values[0])
    median, low, high = (_short(v) for v in (statistics.median(values), min(values), max(values)))
    return f"{median} ({low}–{high})"


def _short(value: float) -> str:
    return f"{value:.4f}".lstrip("0")
