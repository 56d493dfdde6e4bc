"""Files that fuzzing has found (`tests/fuzz.py`): each was more than a reader could bear, and is refused now."""

from pathlib import Path

import pytest

FOUND = {"parquet-histogram-of-levels": (422, "broken_archive")}  # pyarrow ended the process


@pytest.mark.parametrize("name", FOUND)
def test_what_fuzzing_has_found_is_refused(light_client, name):
    data = (Path(__file__).parents[2] / "found" / name).read_bytes()

    response = light_client.post("/v1/datasets", content=data)

    assert (response.status_code, response.json()["code"]) == FOUND[name]


def test_every_file_that_was_found_is_tried():
    assert {path.name for path in (Path(__file__).parents[2] / "found").iterdir()} == FOUND.keys()
