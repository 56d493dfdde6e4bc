"""Arrow streams whose schema is legal and whose columns nobody can name."""

import io

import pyarrow as pa
import pytest

from app.errors import BadUpload
from app.intake import IntakeLimits
from app.intake.batches import read_batch

FILES = pa.array([b"x"], pa.binary())
TWICE = pa.StructArray.from_arrays([FILES, FILES], ["bytes", "bytes"])


@pytest.mark.parametrize(
    ("columns", "names"), [([FILES, FILES], ["image", "image"]), ([TWICE], ["image"])], ids=["columns", "fields"]
)
def test_a_name_that_stands_for_two_is_refused(columns, names):
    table = pa.Table.from_arrays(columns, names=names)
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)

    with pytest.raises(BadUpload) as refused:
        read_batch(out.getvalue(), IntakeLimits(), max_inputs=10, max_bytes=1_000)

    assert refused.value.code == "wrong_shape"
