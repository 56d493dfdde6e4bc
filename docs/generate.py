"""`make docs`: writes openapi.json, api.md, configs.md, errors.md and notes.md beside this file, from the code."""

import ast
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from app import errors
from app.intake.notes import FACTS, MEANINGS
from app.main import create_app
from app.settings import Settings
from models import registry

HERE = Path(__file__).parent
NOTE = "<!-- Made by `make docs` from the code. -->\n"
OF_REQUESTS, OF_JOBS = ["app"], ["workers", "models", "app/store", "app/intake", "app/services"]
TURNED_AWAY = {"BadImage": 0, "RefusedEntry": 0, "Reject": 1}  # where their code stands


def documents() -> dict[str, str]:
    """Every generated file by its name."""
    document = create_app(Settings()).openapi()
    return {
        "openapi.json": json.dumps(document, indent=1, ensure_ascii=False) + "\n",
        "api.md": api(document),
        "configs.md": configs_page(),
        "errors.md": errors_page(),
        "notes.md": notes_page(),
    }


def notes_page() -> str:
    """Every note of a dataset and warning of a training."""
    lines = [
        NOTE,
        "# Notes\n",
        "A dataset says in `notes` how its upload was read, and a training in `warnings` what to know of it. Each has",
        "a stable `code`, a sentence, and, where it is about several things, their `count` and some `examples`.\n",
        "| code | means |\n|---|---|",
    ]
    lines += [f"| `{code}` | {meaning} |" for code, meaning in sorted(MEANINGS.items())]
    lines += ["\n## Facts\n", "What a dataset has in `facts`, where it applies:\n", "| fact | means |\n|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {meaning} |" for name, meaning in sorted(FACTS.items()))]) + "\n"


def configs_page() -> str:
    """Every field of every method's config, with its default in each profile."""
    lines = [
        NOTE,
        "# Configs\n",
        "What `config` of a training job may hold, by method. `GET /v1/methods` has it as JSON Schema.\n",
    ]
    for spec in registry.methods().values():
        profiles = list(spec.profiles)
        lines += [f"## `{spec.name}`\n", f"{spec.title}. {spec.paper}.\n"]
        lines.append(f"| field | {' | '.join(f'`{profile}`' for profile in profiles)} | |")
        lines.append(f"|---|{'---|' * len(profiles)}---|")
        defaults = [asdict(spec.make_config(profile, {"n_clusters": 2})) for profile in profiles]
        for field in fields(spec.config):
            values = ["" if field.name == "n_clusters" else f"`{json.dumps(each[field.name])}`" for each in defaults]
            lines.append(f"| `{field.name}` | {' | '.join(values)} | {field.metadata['description']} |")
        lines.append("")
    return "\n".join(lines)


def api(document: dict[str, Any]) -> str:
    """What can be asked, by resource."""
    lines = [
        NOTE,
        "# API\n",
        "Everything that can be asked, from [openapi.json](openapi.json); a running service shows it",
    ]
    lines += ["under `/docs`. Answers of 400 and above are problems (RFC 9457): see [errors.md](errors.md).\n"]
    by_tag: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    for tag, found in by_tag.items():
        lines.append(f"## {tag.capitalize()}\n")
        for method, path, operation in found:
            lines += list(_operation(method, path, operation))
    return "\n".join(lines)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### `{method} {path}`\n"
    yield operation.get("description", "") + "\n"
    scopes = [scope for one in operation.get("security", []) for scopes in one.values() for scope in scopes]
    if scopes:
        yield f"Scope: `{'`, `'.join(sorted(set(scopes)))}`.\n"
    parameters = [one for one in operation.get("parameters", []) if one["in"] != "path"]
    if parameters:
        yield "| parameter | in | |\n|---|---|---|"
        for one in parameters:
            yield f"| `{one['name']}` | {one['in']} | {_kind(one['schema'])}. {one.get('description', '')} |"
        yield ""
    if "requestBody" in operation:
        bodies = operation["requestBody"]["content"].items()
        yield "Body: " + ", ".join(f"`{media}`{_named(content.get('schema', {}))}" for media, content in bodies) + ".\n"
    for status, response in operation["responses"].items():
        if status < "400":
            media = [
                f"`{name}`{_named(content.get('schema', {}))}" for name, content in response.get("content", {}).items()
            ]
            yield f"- {status}: {', '.join(media) or 'no body'}"
        else:
            yield f"- {status}: {response['description']}"
    yield ""


def _kind(schema: dict[str, Any]) -> str:
    kind = schema.get("format") or schema.get("type") or " or ".join(_kind(one) for one in schema.get("anyOf", []))
    if "enum" in schema:
        kind = " or ".join(f"`{value}`" for value in schema["enum"])
    bounds = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    default = f"; {schema['default']!r} by default" if schema.get("default") not in (None, "") else ""
    return " ".join([str(kind), *bounds]) + default


def _named(schema: dict[str, Any]) -> str:
    references = [schema, *schema.get("oneOf", [])]
    names = [one["$ref"].rpartition("/")[2] for one in references if "$ref" in one]
    return f" ({' or '.join(names)})" if names else ""


@dataclass(frozen=True)
class Failure:
    """One code: the status it comes with (none: of a job), and what it says."""

    code: str
    status: int | None
    text: str


def errors_page() -> str:
    """Every stable code, from where the code raises it."""
    lines = [
        NOTE,
        "# Errors\n",
        "An answer of 400 and above is a problem (RFC 9457, `application/problem+json`):\n",
        "```json",
    ]
    lines.append('{"type": "about:blank", "title": "Not found", "status": 404, "detail": "there is no job job_x",')
    lines += [' "code": "job_not_found", "request_id": "5f0c…", "errors": []}', "```\n"]
    lines.append(
        "`code` is stable; `detail` is for people and may change. 429 and 503 say in `Retry-After` when to ask again.\n"
    )
    requests = {failure for folder in OF_REQUESTS for failure in _failures(folder) if failure.status}
    jobs = {failure for folder in OF_JOBS for failure in _failures(folder) if not failure.status}
    jobs |= set(_failures("workers"))
    lines += ["| code | status | says |", "|---|---|---|"]
    lines += [f"| `{one.code}` | {one.status} | {one.text} |" for one in _by_code(requests)]
    lines += [
        "\n## Of jobs, and of single files\n",
        "In `error` of a job, in `/rejects` of a dataset, or of one item of `assign`:\n",
    ]
    lines += ["| code | says |", "|---|---|"]
    lines += [f"| `{one.code}` | {one.text} |" for one in _by_code(jobs)]
    return "\n".join(lines) + "\n"


def _by_code(failures: set[Failure]) -> list[Failure]:
    first: dict[str, Failure] = {}
    for failure in sorted(failures, key=lambda one: (one.code, not one.text, one.text)):
        first.setdefault(failure.code, failure)
    return list(first.values())


def _failures(folder: str) -> Iterator[Failure]:
    for path in sorted((HERE.parent / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield from _of_call(node)
            elif isinstance(node, ast.Dict):
                entry = {
                    str(getattr(key, "value", "")): value for key, value in zip(node.keys, node.values, strict=True)
                }
                if isinstance(entry.get("code"), ast.Constant) and "message" in entry:
                    yield Failure(_text(entry["code"]), None, _text(entry["message"]))
            elif isinstance(node, ast.ClassDef) and folder == "models":
                for line in node.body:
                    if isinstance(line, ast.Assign) and getattr(line.targets[0], "id", "") == "code":
                        yield Failure(_text(line.value), None, (ast.get_docstring(node) or "").split("\n")[0])


def _of_call(node: ast.Call) -> Iterator[Failure]:
    """What an error that is made, a file that is turned away, or a problem that is rendered says."""
    name, given = getattr(node.func, "id", getattr(node.func, "attr", "")), [_text(one) for one in node.args]
    code, message = (
        next((_text(word.value) for word in node.keywords if word.arg == wanted), "") for wanted in ("code", "message")
    )
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, errors.AppError):
        yield Failure(code or str(kind.code), kind.status, given[0] if given else "")
    elif name in TURNED_AWAY and len(given) > (at := TURNED_AWAY[name]) + 1 and given[at]:
        yield Failure(given[at], None, given[at + 1])
    elif name == "render" and len(given) == 5 and given[1].isdecimal() and given[2]:
        yield Failure(given[2], int(given[1]), given[4])
    elif code:
        yield Failure(code, None, given[0] if given else message)


def _text(node: ast.expr) -> str:
    """A message as it is written, … for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


if __name__ == "__main__":
    for name, text in documents().items():
        (HERE / name).write_text(text)
