"""The suite of results: what it runs, what it does not run again, and the table it writes."""

import json

import numpy as np
import pytest

from benchmarks import results_page, suite
from benchmarks.quality import Circumstances, measure
from tests.factories import blobs_of_pixels

RUN = {"method": "depict", "profile": "fast", "dataset": "mnist", "nmi": 0.9, "peak_mb": 2_500, "commit": "abc"}


@pytest.fixture
def data(tmp_path):
    x, y = blobs_of_pixels(60)
    np.savez(tmp_path / "small.npz", x=x, y=y, n_train=np.array(45))
    return tmp_path


def test_a_cell_is_the_median_with_the_lowest_and_highest_and_says_where_it_ends_below_its_start():
    runs = [
        {**RUN, "seed": n, "acc": acc, "start_acc": 0.95, "seconds": 100 + n} for n, acc in enumerate((0.9, 0.94, 0.8))
    ]

    page = results_page.render(runs)

    line = next(line for line in page.splitlines() if line.startswith("| `depict`"))
    assert ".9000 (.8000–.9400) **below**" in line
    assert line.split(" | ")[4:8] == [".9500 (.9500–.9500)", "101", "2.5", "3"]
    assert line.endswith("| abc | .965 |")


def test_methods_come_by_their_median_and_data_sets_apart():
    runs = [
        {**RUN, "method": name, "dataset": dataset, "seed": 0, "acc": acc, "start_acc": None, "seconds": 1}
        for name, dataset, acc in (("kmeans", "usps", 0.6), ("gmm", "usps", 0.7), ("kmeans", "orl32", 0.5))
    ]

    page = results_page.render(runs)

    assert page.index("`gmm`") < page.index("`kmeans`") < page.index("## ORL")


def test_a_suite_goes_on_where_it_was_stopped(data, monkeypatch):
    for name in ("STARTS", "RESULTS", "PAGE", "NOTES"):
        monkeypatch.setattr(suite, name, data / f"{name.lower()}.x")
    monkeypatch.setattr(suite, "_commit", lambda: "abc")

    for seed in (0, 0, 1):
        suite.run(data, suite.Case("small", "kmeans", "paper", seed))

    runs = suite.read(data / "results.x")
    assert [(run["dataset"], run["seed"], run["acc"]) for run in runs] == [("small", 0, 1.0), ("small", 1, 1.0)]
    assert runs[0]["peak_mb"] > 50
    assert json.dumps(runs[0])
    assert "`kmeans` | paper | 1.0000" in (data / "page.x").read_text()


def test_a_kept_start_counts_the_seconds_it_took(data):
    config = {"n_clusters": 3, "n_hold_steps": 20, "n_epochs": 1, "batch_size": 20}

    first, second = (
        measure(data / "small.npz", "dcae", "fast", Circumstances(0, data / "kept"), {**config}) for _ in "ab"
    )

    assert (first["start_acc"], second["start_acc"]) == (1.0, 1.0)
    assert first["acc"] == second["acc"]
    seconds = json.loads(next((data / "kept").rglob("start.json")).read_text())["seconds"]
    assert second["seconds"] > seconds > 0


def test_told_targets_are_of_the_training_part_and_the_rest_is_scored_apart(data):
    config = {"n_clusters": 3, "n_hold_steps": 60, "n_epochs": 1, "batch_size": 20}

    found = measure(data / "small.npz", "depict", "fast", Circumstances(n_known=6), config)

    assert (found["n_images"], found["n_known"], found["device"]) == (45, 6, "cpu")
    assert found["held_out_error"] == 0


def test_a_shortened_recipe_is_shown_apart_with_its_start_and_its_picture(tmp_path):
    curve = [{"phase": "initialise", "epoch": 0, "acc": 0.5}, {"phase": "cluster", "epoch": 1, "acc": 0.6}]
    run = {**RUN, "profile": "paper", "seed": 0, "acc": 0.6, "start_acc": 0.5, "seconds": 9, "curve": curve}
    runs = [{**run, "config": {"n_epochs": 1}}, {**run, "config": {"n_epochs": 2}}]

    results_page.draw_curves(runs, tmp_path / "results")
    page = results_page.render(runs, "what was tried")

    assert "start .5000, best .6000, end .6000, 9 s; `n_epochs` 1" in page
    assert "| `depict`" not in page
    assert page.endswith("what was tried\n")
    names = [part.split(")")[0] for part in page.split("](results/")[1:]]
    assert len(set(names)) == 2
    assert all((tmp_path / "results" / name).read_text().startswith("<?xml") for name in names)


def test_runs_with_known_targets_are_scored_by_their_error_on_the_test_part():
    run = {**RUN, "acc": 0.97, "start_acc": 0.96, "seconds": 9, "n_known": 1_000}
    page = results_page.render([{**run, "seed": n, "held_out_error": error} for n, error in enumerate((0.02, 0.018))])

    assert "| `depict` | fast | 1000 | 1.90 % (1.80–2.00) | 9 | 2 | abc |" in page
