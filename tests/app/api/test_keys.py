"""Who gets in, and to what: keys, scopes, tenants, and this machine alone where no keys are asked for."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from typer.testing import CliRunner

from app.services import keys
from app.settings import Settings
from app.store.tables import KeyRow
from clusterserve.cli import app as cli
from tests.factories import client_of, npy, npz, run_jobs
from tests.marks import production_first

MARK = "ours-alone"
OPEN = {"/livez", "/readyz", "/v2", "/v2/health/live", "/v2/health/ready"}
IDS = ("upload_id", "dataset_id", "job_id", "model_id", "set_id", "webhook_id")
OTHERS = {"number": "1", "index": "0", "cluster": "0", "name": "model.onnx"}


@pytest.fixture
def keyed(settings):
    return settings.model_copy(update={"require_keys": True, "webhook_allow_private": True})


@pytest.fixture
def secret(keyed):
    return keys.secret_of(keyed)


@pytest.fixture
def make_key(database, secret):
    """A key for a tenant, and the headers that show it."""

    def make(tenant="ours", scopes=("read", "write", "train"), **more):
        with database.write() as session:
            key, _ = keys.create(session, secret, tenant_id=tenant, name="", scopes=list(scopes), **more)
        return {"Authorization": f"Bearer {key}"}

    return make


@pytest.fixture
def served(keyed):
    with client_of(keyed) as client:
        yield client


@pytest.fixture
def ours(served, make_key, keyed, database):
    """Something of every kind that belongs to one tenant: ids by the names they have in paths."""
    mine = make_key()
    dataset = served.post("/v1/datasets", content=npz(12), params={"name": MARK}, headers=mine).json()
    run_jobs(keyed, database)
    body = {"kind": "train", "method": "kmeans", "dataset_id": dataset["id"], "config": {"n_clusters": 3}, "name": MARK}
    job = served.post("/v1/jobs", json=body, headers=mine).json()
    run_jobs(keyed, database)
    model = served.get("/v1/models", headers=mine).json()["items"][0]
    upload = served.post("/v1/uploads", json={"filename": MARK, "n_bytes": 10}, headers=mine).json()
    webhook = served.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/ours-alone"}, headers=mine).json()
    return {
        "webhook_id": webhook["id"],
        "upload_id": upload["id"],
        "dataset_id": dataset["id"],
        "job_id": job["id"],
        "model_id": model["id"],
        "set_id": model["assignment_set_id"],
    }


def calls(client, ids):
    """Every call of the OpenAPI document, with these ids: method, path, what to send, scopes needed."""
    for template, item in client.get("/openapi.json").json()["paths"].items():
        for method, operation in item.items():
            path = re.sub(r"\{(\w+)\}", lambda match: {**ids, **OTHERS}[match.group(1)], template)
            needed = {scope for one in operation.get("security", []) for scopes in one.values() for scope in scopes}
            yield method, template, path, sent(method, template, ids), needed


def sent(method, template, ids):
    """A body that is right but for whose it is."""
    bodies = {
        ("post", "/v1/jobs"): {
            "json": {"kind": "train", "method": "kmeans", "dataset_id": ids["dataset_id"], "config": {"n_clusters": 2}}
        },
        ("post", "/v1/webhooks"): {"json": {"url": "http://127.0.0.1:9/"}},
        ("post", "/v1/uploads"): {"json": {"filename": "x", "n_bytes": 3}},
        ("post", "/v1/datasets"): {"content": npy([[0.0, 1.0]] * 4)},
        ("patch", "/v1/models/{model_id}"): {"json": {"name": "x"}},
        ("put", "/v1/uploads/{upload_id}/parts/{number}"): {"content": b"abc"},
        ("post", "/v1/models/{model_id}/assign"): {"content": npz(3)},
    }
    return bodies.get((method, template), {})


def test_no_call_lets_anybody_in_with_no_key_a_wrong_one_an_old_one_or_one_of_too_little(served, make_key):
    """The tenant walk, first half: every route times every credential that should not do, whatever it asks for."""
    import datetime

    old = make_key(lasts=datetime.timedelta(seconds=-1))
    mine = make_key()
    forged = {"Authorization": mine["Authorization"][:-4] + "AAAA"}
    unknown = {"Authorization": "Bearer cs_000000000000_nobody"}
    wrong = {
        scope: make_key(scopes=[other for other in keys.SCOPES[:3] if other != scope]) for scope in keys.SCOPES
    }  # `admin` allows all
    n_calls = 0
    for method, template, path, body, needed in calls(served, dict.fromkeys(IDS, "of-nobody")):
        if template in OPEN:
            assert served.request(method, path).status_code == 200
            continue
        n_calls += 1
        assert needed, f"{method} {template} asks for no scope"
        answers = [(None, 401, "key_missing"), (forged, 401, "unknown_key"), (unknown, 401, "unknown_key")]
        answers += [(old, 401, "key_expired"), *((wrong[scope], 403, "wrong_scope") for scope in needed)]
        for headers, status, code in answers:
            response = served.request(method, path, headers=headers, **body)
            found = (response.status_code, response.json()["code"])
            assert found == (status, code), f"{method} {template} with {headers}"
            assert (response.headers.get("WWW-Authenticate") == "Bearer") == (status == 401)
    assert n_calls > 30


@production_first
def test_another_tenants_ids_are_not_found_and_nothing_of_it_is_seen(served, make_key, ours):
    """The tenant walk, second half: the ids are right, the key is good, but it is another's."""
    theirs = make_key("theirs", ["admin"])
    n_foreign = 0
    for method, template, path, body, _ in calls(served, ours):
        if template == "/metrics":  # of the whole service, for whoever runs it
            continue
        response = served.request(method, path, headers=theirs, **body)
        is_foreign = any(f"{{{name}}}" in template for name in IDS) or (method, template) == ("post", "/v1/jobs")
        n_foreign += is_foreign
        assert MARK not in response.text, f"{method} {template}"
        if is_foreign:
            assert response.status_code == 404, f"{method} {template}: {response.text}"
        else:
            assert response.status_code < 300, f"{method} {template}: {response.text}"
    assert n_foreign > 25
    bodies = [
        ("/v1/datasets", {"upload_id": ours["upload_id"]}),
        ("/v1/jobs", {"kind": "assign", "model_id": ours["model_id"], "dataset_id": ours["dataset_id"]}),
        ("/v1/jobs", {"kind": "assign", "model_id": ours["model_id"], "upload_id": ours["upload_id"]}),
    ]
    assert [served.post(path, json=body, headers=theirs).status_code for path, body in bodies] == [404] * 3
    mine = make_key()
    assert [item["id"] for item in served.get("/v1/models", headers=mine).json()["items"]] == [ours["model_id"]]
    assert served.get(f"/v1/models/{ours['model_id']}", headers=mine).status_code == 200


def test_a_key_is_kept_as_a_keyed_hash_only(database, make_key, secret):
    key = make_key()["Authorization"].removeprefix("Bearer ")

    with database.read() as session:
        row = session.query(KeyRow).one()
        kept = str({name: getattr(row, name) for name in row.__table__.columns.keys()})  # noqa: SIM118 - columns

    mark, prefix, shown_once = key.split("_", 2)
    assert (mark, prefix) == ("cs", row.prefix)
    assert shown_once not in kept
    assert row.digest == keys.digest(secret, key) != keys.digest(b"another secret", key)


def test_a_rotated_key_goes_on_for_the_overlap_and_an_ended_one_stops(served, make_key, database, secret, monkeypatch):
    import datetime

    monkeypatch.setattr(keys, "RECHECK_S", 0.0)
    old = make_key(scopes=["read"])
    prefix = old["Authorization"].split("_")[1]

    with database.write() as session:
        new, row = keys.rotate(session, secret, prefix, datetime.timedelta(hours=1))
    both = [old, {"Authorization": f"Bearer {new}"}]
    while_both = [served.get("/v1/jobs", headers=headers).status_code for headers in both]
    with database.write() as session:
        keys.end(session, prefix)
    after = [served.get("/v1/jobs", headers=headers).status_code for headers in both]

    assert (row.tenant_id, row.scopes) == ("ours", ["read"])
    assert (while_both, after) == ([200, 200], [401, 200])


def test_an_ended_key_closes_its_event_streams(served, make_key, database, monkeypatch):
    monkeypatch.setattr(keys, "RECHECK_S", 0.1)
    monkeypatch.setattr("app.api.jobs.KEEP_ALIVE_S", 0.2)
    mine = make_key()
    waiting = served.post("/v1/datasets", content=npz(12), headers=mine).json()["job_id"]  # no worker takes it
    url, headers = f"/v1/jobs/{waiting}/events", {**mine, "Accept": "text/event-stream"}
    with ThreadPoolExecutor() as pool:
        stream = pool.submit(served.get, url, headers=headers)
        time.sleep(1)
        assert not stream.done()
        with database.write() as session:
            keys.end(session, mine["Authorization"].split("_")[1])

        assert ": waiting" in stream.result(timeout=20).text


def test_figures_of_the_whole_service_are_for_its_own_tenant(served, make_key):
    answers = [served.get("/metrics", headers=make_key(tenant, ["admin"])) for tenant in ("ours", "default")]

    assert [answer.status_code for answer in answers] == [403, 200]


def test_two_processes_that_begin_at_once_hash_under_one_secret(tmp_path):
    settings = Settings(data_dir=tmp_path / "new")
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: keys.secret_of(settings), range(64)))

    assert len(found) == 1
    assert len(found.pop()) == 64
    assert (tmp_path / "new" / "key-secret").stat().st_mode & 0o077 == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["key-secret"]


def test_use_is_noted(served, make_key, database):
    headers = make_key()
    with database.read() as session:
        assert session.query(KeyRow).one().last_used_at is None

    served.get("/v1/jobs", headers=headers)

    with database.read() as session:
        assert session.query(KeyRow).one().last_used_at is not None


@pytest.mark.parametrize(
    ("caller", "headers", "code"),
    [
        ("10.0.0.9", {}, "keys_required"),
        ("127.0.0.1", {"Host": "evil.example:8000"}, "foreign_host"),
        ("127.0.0.1", {"Origin": "http://evil.example"}, "foreign_origin"),
        ("127.0.0.1", {"Host": ""}, "foreign_host"),
        ("127.0.0.1", {"Host": "["}, "foreign_host"),
        ("127.0.0.1", {"Origin": "http://["}, "foreign_origin"),
    ],
)
def test_without_keys_only_this_machine_is_answered(embedded_settings, caller, headers, code):
    with client_of(embedded_settings) as client:
        client._transport.client = (caller, 50_000)
        response = client.get("/v1/jobs", headers=headers)

        assert (response.status_code, response.json()["code"]) == (403, code)


@pytest.mark.parametrize(
    "headers", [{"Host": "localhost:8000"}, {"Host": "[::1]:80"}, {"Origin": "http://127.0.0.1:80"}]
)
def test_without_keys_this_machine_needs_nothing(light_client, headers):
    assert light_client.get("/v1/jobs", headers=headers).status_code == 200


def test_the_command_makes_lists_exchanges_and_ends_keys(keyed, served, monkeypatch):
    for name, value in keyed.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(keys, "RECHECK_S", 0.0)

    def run(*words):
        result = CliRunner().invoke(cli, ["keys", *words])
        assert result.exit_code == 0, result.output
        return result.output

    def status(key):
        return served.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code

    first = run("create", "--tenant", "acme", "--scopes", "read", "--days", "9").split()[-1]
    second = run("rotate", first.split("_")[1], "--overlap-hours", "0").split()[-1]

    assert (status(first), status(second)) == (401, 200)
    assert second.split("_")[1] in run("list", "--tenant", "acme")
    run("end", second.split("_")[1])
    assert status(second) == 401
    assert CliRunner().invoke(cli, ["keys", "create", "--scopes", "fly"]).exit_code == 2
    assert CliRunner().invoke(cli, ["keys", "end", "nobody"]).exit_code == 2
