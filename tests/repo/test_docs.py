"""Documents that must keep up with the code."""

import runpy
from dataclasses import fields
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from app.intake.notes import MEANINGS
from app.main import create_app
from app.schemas.configs import schema_of
from app.settings import Settings
from models import registry

ROOT = Path(__file__).parents[2]


def test_every_setting_is_documented():
    text = (ROOT / "docs" / "operations.md").read_text()

    missing = [name for name in Settings.model_fields if f"`{name.upper()}`" not in text]

    assert missing == []


def test_every_chaos_file_that_is_named_exists_and_every_one_is_named():
    text = (ROOT / "docs" / "operations.md").read_text()
    files = {path.name for path in (ROOT / "tests" / "chaos").glob("test_*.py")}

    assert {name for name in files if name not in text} == set()
    assert "test_disk.py" in files


@pytest.mark.parametrize("name", ["openapi.json", "api.md", "configs.md", "errors.md", "notes.md"])
def test_what_is_made_from_the_code_is_up_to_date(name):
    """A change of the contract shows here; `make docs` writes the files anew."""
    made = runpy.run_path(str(ROOT / "docs" / "generate.py"))["documents"]()

    assert (ROOT / "docs" / name).read_text() == made[name]


def test_every_field_of_every_config_is_described():
    """Plain words with a range or a meaning for each choice, in the JSON Schema of `GET /v1/methods` too."""
    for spec in registry.methods().values():
        properties = schema_of(spec.name)["properties"]
        assert properties.keys() == {field.name for field in fields(spec.config)}
        assert [name for name, schema in properties.items() if len(schema.get("description", "")) < 15] == []


def test_the_document_is_openapi_with_one_name_for_each_operation():
    document = create_app(Settings()).openapi()
    operations = [one for path in document["paths"].values() for one in path.values()]

    validate(document)
    assert len({one["operationId"] for one in operations}) == len(operations)
    assert all(one["description"] for one in operations)


@pytest.mark.parametrize("code", MEANINGS)
def test_every_note_is_tested(code):
    tests = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path.name != "test_docs.py"]

    assert any(f'"{code}"' in text for text in tests)
