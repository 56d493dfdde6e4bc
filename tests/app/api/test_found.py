"""Files that fuzzing has found (`tests/fuzz.py`): each was more than a reader could bear, and is refused now."""

from pathlib import Path

import pytest

from app.errors import AppError
from app.intake import IntakeLimits
from app.intake.batches import read_batch

FOLDER = Path(__file__).parents[2] / "found"
FOUND = {
    "parquet-histogram-of-levels": (422, "broken_archive"),  # pyarrow ended the process
    "batches-two-columns-of-one-name": (422, "wrong_shape"),  # a KeyError of pyarrow's
}


@pytest.mark.parametrize("name", FOUND)
def test_what_fuzzing_has_found_is_refused(light_client, name):
    data = (FOLDER / name).read_bytes()
    if name.startswith("batches"):
        with pytest.raises(AppError) as refused:
            read_batch(data, IntakeLimits(), max_inputs=1000, max_bytes=1 << 24)
        found = refused.value.status, refused.value.code
    else:
        response = light_client.post("/v1/datasets", content=data)
        found = response.status_code, response.json()["code"]

    assert found == FOUND[name]


def test_every_file_that_was_found_is_tried():
    assert {path.name for path in FOLDER.iterdir()} == FOUND.keys()
