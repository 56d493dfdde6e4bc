"""The rules of the house that no other tool checks."""

import ast
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [p for d in ("app", "workers", "models", "clusterserve", "benchmarks") for p in (ROOT / d).rglob("*.py")]


@pytest.mark.parametrize("path", [*SOURCES, *(ROOT / "tests").rglob("*.py")], ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_longer_than_400_lines(path: Path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_function_is_longer_than_40_lines(path: Path):
    functions = [
        n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    too_long = {f.name: _code_lines(f) for f in functions if _code_lines(f) > 40}

    assert too_long == {}


def test_the_api_imports_without_torch_and_fast():
    code = "import sys, json, app.main; app.main.create_app(); print(json.dumps(sorted(sys.modules)))"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    loaded = {name.partition(".")[0] for name in json.loads(out)}

    assert loaded.isdisjoint({"torch", "sklearn", "scipy", "umap", "workers", "onnx"})
    # CPU seconds, 2 of them on the machine it was written on: others may be at work on the same cores.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 4


def test_the_worker_process_never_loads_torch():
    code = "import sys, json, workers.tasks, workers.ingest; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert {"torch", "sklearn"}.isdisjoint(name.partition(".")[0] for name in json.loads(out))


def test_make_help_names_every_target():
    targets = {
        line.split(":")[0]
        for line in (ROOT / "Makefile").read_text().splitlines()
        if line[:1].isalpha() and ": " in line
    }
    targets -= {name for name in targets if "=" in name or "?" in name}
    command = ["make", "--no-print-directory", "help"]
    out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    named = {line.split()[1] for line in out.splitlines()}

    assert named == targets


def test_the_lock_names_no_registry_and_pins_torch_once():
    lock = (ROOT / "constraints.txt").read_text()

    assert "://" not in lock
    assert lock.count("\ntorch==") == 1


def _code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body without its docstring and without the signature."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def _reads_storage(node: ast.AST) -> bool:
    """Whether code asks a service for its blobs or files; what runs after a commit does so without a session."""
    return any(
        isinstance(one, ast.Attribute) and one.attr in ("blobs", "files") and ast.unparse(one.value) == "service"
        for one in ast.walk(node)
    )


def test_no_sql_session_stays_open_while_storage_is_read():
    """A silent object store must not hold the connections of all requests that read it."""
    found = []
    for path in sorted((ROOT / "app" / "api").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                takes = {ast.unparse(one.annotation) for one in node.args.args if one.annotation is not None}
                if "ReadSession" in takes and _reads_storage(ast.Module(node.body, [])):
                    found.append(f"{path.name}: {node.name}")
            is_session = isinstance(node, ast.With) and "database.read()" in ast.unparse(node.items[0])
            if is_session and _reads_storage(ast.Module(node.body, [])):
                found.append(f"{path.name}: line {node.lineno}")

    assert found == []
