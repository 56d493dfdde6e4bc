"""Documents that must keep up with the code."""

from pathlib import Path

from app.settings import Settings

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
