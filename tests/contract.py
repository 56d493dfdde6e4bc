"""For Schemathesis: what a caller would send where the document's formats say more than JSON Schema can."""

import hashlib
import itertools
import os

import schemathesis
from hypothesis import strategies as st

from app.store import pages
from tests.factories import picture

PICTURES = [picture(), picture(form="JPEG"), picture(form="GIF")]
HOOK = "http://127.0.0.1:9/hook"
UNKNOWN = "x-schemathesis-unknown-property"
_numbers = itertools.count()

# A cursor belongs to one list: `before_call` makes it one of the list that is asked.
schemathesis.openapi.format("cursor", st.integers(0, 10**6).map(str))
schemathesis.openapi.format("row-cursor", st.integers(0, 10**6).map(str))
schemathesis.openapi.format("idempotency-key", st.text("abc", min_size=1, max_size=20))
schemathesis.openapi.format("webhook-url", st.just(HOOK))
schemathesis.openapi.format("binary", st.sampled_from(PICTURES))
for kind in ("application/octet-stream", "image/*"):
    schemathesis.openapi.media_type(kind, st.sampled_from(PICTURES))


def _cursor(path, names, query):
    """A cursor of the list at a path, at the position that was drawn."""
    position = int(query["cursor"])
    tables = {"assignment-sets": "assignment_sets", "audit-events": "audit_events"}
    rows = {
        "images": "images {dataset_id}",
        "rejects": "rejects {dataset_id}",
        "events": "events {job_id}",
        "clusters": "clusters {model_id}",
        "assignments": "assignments {set_id} {cluster} {min_confidence}",
    }
    last = path.rsplit("/", 1)[-1]
    if last == "images" and "{cluster}" in path:
        return pages.encode(position, f"cluster {names['model_id']} {names['cluster']}")
    if last in rows:
        given = {"cluster": query.get("cluster"), "min_confidence": float(query.get("min_confidence", 0)), **names}
        return pages.encode(position, rows[last].format(**given))
    if last == "deliveries":
        return pages.encode(f"dlv_{position:026d}", f"deliveries {names['webhook_id']}")
    return pages.encode(f"job_{position:026d}", f"{tables.get(last, last)} ")


@schemathesis.hook
def filter_case(_context, case):
    """Headers that no document names are everywhere on the web; nobody refuses them."""
    return UNKNOWN not in (case.headers or {})


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """Where a request is as the document wants it: a key that is new, the digest of what is sent, a method's config."""
    if getattr(case.meta.phase.data, "parameter", None) == "Authorization":
        return  # which is left out on purpose
    if case.meta.generation.mode.is_positive and "cursor" in (case.query or {}):
        case.query["cursor"] = _cursor(case.operation.path, case.path_parameters or {}, case.query)
    if case.meta.generation.mode.is_positive and case.operation.path == "/v1/datasets":
        for name in ("columns", "target", "names"):  # the pictures that are sent have none
            (case.query or {}).pop(name, None)
    if case.meta.generation.mode.is_positive and isinstance(case.body, dict) and case.body.get("kind") == "train":
        # What a config may hold, `GET /v1/methods` says, method by method.
        case.body = {**case.body, "method": "kmeans", "profile": None, "known": {}, "config": {"n_clusters": 2}}
    if case.meta.generation.mode.is_positive and case.path == "/v1/webhooks" and isinstance(case.body, dict):
        case.body = {"url": HOOK}  # the example's host is known where there is a name server
    headers = case.headers or {}
    key, digest = headers.get("Idempotency-Key", ""), headers.get("content-sha256", "")
    right = {}
    if 0 < len(key) <= 20 and key.isalpha():
        right["Idempotency-Key"] = f"{key}-{os.getpid()}-{next(_numbers)}"
    if len(digest) == 64 and isinstance(case.body, bytes):
        right["content-sha256"] = hashlib.sha256(case.body).hexdigest()
    if right:
        case.headers = {**headers, **right}
