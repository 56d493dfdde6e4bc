"""Who changed what is written down with the change, and only then."""

import pytest

from app.services import keys
from tests.factories import client_of, npz, run_jobs


@pytest.fixture
def served(settings):
    with client_of(settings.model_copy(update={"require_keys": True})) as client:
        yield client


@pytest.fixture
def make_key(served, database):
    def make(tenant: str, *scopes: str):
        secret = served.app.state.service.keyring._secret
        with database.write() as session:
            key, row = keys.create(session, secret, tenant_id=tenant, name="", scopes=list(scopes))
        return {"Authorization": f"Bearer {key}"}, row.prefix

    return make


def test_every_change_is_noted_once_with_its_key_and_a_refused_one_is_not(served, make_key, settings, database):
    (mine, prefix), (theirs, _) = make_key("ours", "admin"), make_key("theirs", "admin")

    dataset = served.post("/v1/datasets", content=npz(12), headers=mine).json()
    run_jobs(settings, database)  # what workers do is no request
    body = {"kind": "train", "method": "kmeans", "dataset_id": dataset["id"], "config": {"n_clusters": 3}}
    served.post("/v1/jobs", json=body, headers=mine)
    served.post("/v1/jobs", json=body | {"method": "nobody"}, headers=mine)
    served.post("/v1/jobs", json=body, params={"dry_run": True}, headers=mine)
    served.get("/v1/jobs", headers=mine)
    served.delete(f"/v1/datasets/{dataset['id']}", headers=theirs)
    events = served.get("/v1/audit-events", headers=mine).json()["items"]

    assert [(event["action"], event["target"]) for event in events] == [
        ("create_job", "/v1/jobs"),
        ("create_dataset", "/v1/datasets"),
    ]
    assert {event["key_prefix"] for event in events} == {prefix}
    assert {event["address"] for event in events} == {"127.0.0.1"}
    assert served.get("/v1/audit-events", headers=theirs).json()["items"] == []


def test_events_are_for_those_who_run_the_tenant(served, make_key):
    reader, _ = make_key("ours", "read", "write", "train")

    assert served.get("/v1/audit-events", headers=reader).status_code == 403
