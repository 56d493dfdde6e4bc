"""The papers' recipes: stopped anywhere, they go on to the result of an undisturbed run."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.papers import CASES, Case, Recipe
from tests.factories import blobs_of_pixels

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path):
    """A folder with an mnist.npz and a usps.npz of 60 images each."""
    for name, side in (("mnist", 28), ("usps", 16)):
        x, y = blobs_of_pixels(60, side=side)
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
    return tmp_path


def told(data: Path, *options: str) -> list[dict]:
    """The command's lines, with tiny settings."""
    command = [sys.executable, "-m", "benchmarks.papers", "--data", str(data), "--out", str(data / "out"), "--small"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [*command, "--device", "cpu", *options], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def curve_of(folder: Path) -> list[dict]:
    """Its epochs, without the time they took."""
    epochs = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    return [{name: value for name, value in epoch.items() if name != "slice_s"} for epoch in epochs]


def test_every_recipe_runs_once_and_tells_its_accuracy_beside_the_published_one(data):
    device, *lines = told(data)

    assert device["line"] == "device"
    assert {line["line"] for line in lines} == {case.name for case in CASES}
    ended = {line["line"]: line for line in lines if line.get("state") == "over"}
    assert ended.keys() == {case.name for case in CASES}
    assert all(0 < line["acc"] <= 1 and line["published"][0] in ".1" for line in ended.values())

    again = told(data, "--method", "depict")[1:]
    assert [(line["line"], line["state"]) for line in again] == [
        ("depict-mnist_test", "over before"), ("depict-usps", "over before")
    ]  # fmt: skip
    assert again[0]["acc"] == ended["depict-mnist_test"]["acc"]


def test_a_run_that_was_stopped_goes_on_to_the_curve_of_an_undisturbed_one(data):
    case = Case("depict", "mnist", n_last=10_000)
    whole = Recipe(case, data, data / "whole", "cpu", is_small=True)
    expected = whole.run(1_000)
    looks = itertools.count()  # a clock that goes by looks, so that a slow machine cuts at the same steps as a fast one
    cut = Recipe(case, data, data / "cut", "cpu", is_small=True, clock=lambda: float(next(looks)))

    slices = []
    while not cut.is_over and len(slices) < 50:
        slices.append(cut.run(10))

    assert [one["state"] for one in slices[:-1]] == ["stopped"] * (len(slices) - 1)
    assert len(slices) > 1
    assert all(one["about_left_s"] is None or one["about_left_s"] >= 0 for one in slices[:-1])
    assert slices[-1] == expected
    assert curve_of(data / "cut" / case.name) == curve_of(data / "whole" / case.name)


def test_recipes_of_other_methods_are_left_alone_and_no_time_starts_none(data):
    assert [line["line"] for line in told(data, "--method", "dcae", "--minutes", "0")[1:]] == ["dcae-mnist"]
    assert not (data / "out").exists()
