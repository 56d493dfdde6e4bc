"""Tags of what resources say, and changes held against them."""

import pytest

from app.api.conditions import is_known, require, tag
from app.errors import PreconditionFailed
from app.schemas.models import ModelPatch
from tests.factories import client_of, npz


@pytest.mark.parametrize(
    ("header", "is_weak_match", "is_strong_match"),
    [
        ('"a"', True, True),
        ('"b", "a"', True, True),
        ("*", True, True),
        ('W/"a"', True, False),
        ('"b"', False, False),
        ("a", False, False),
        ("", False, False),
    ],
)
def test_headers_name_tags_as_the_rfc_says(header, is_weak_match, is_strong_match):
    assert is_known(header, '"a"') == is_weak_match
    if is_strong_match:
        require(header, lambda: '"a"')
    else:
        with pytest.raises(PreconditionFailed):
            require(header, lambda: '"a"')


def test_nothing_asked_is_nothing_looked_up():
    assert not is_known(None, '"a"')
    require(None, lambda: pytest.fail("looked up"))


def test_a_tag_changes_with_what_is_said():
    assert tag(ModelPatch(name="a")) == tag(ModelPatch(name="a")) != tag(ModelPatch(name="b"))


def test_who_changes_what_has_changed_since_is_told_so(trained):
    client, model, _ = trained
    address = f"/v1/models/{model}"
    first = client.get(address)
    seen = {"If-Match": first.headers["ETag"]}
    assert client.get(address, headers={"If-None-Match": first.headers["ETag"]}).status_code == 304

    changed = client.patch(address, json={"description": "mine"}, headers=seen)
    late = client.patch(address, json={"description": "no, mine"}, headers=seen)
    refused = client.delete(address, headers=seen)

    assert changed.status_code == 200
    assert [(one.status_code, one.json()["code"]) for one in (late, refused)] == [(412, "precondition_failed")] * 2
    assert client.get(address, headers={"If-None-Match": first.headers["ETag"]}).json()["description"] == "mine"
    again = client.patch(address, json={"description": ""}, headers={"If-Match": changed.headers["ETag"]})
    assert (again.status_code, again.json()) == (200, {**first.json(), "updated_at": again.json()["updated_at"]})


def test_datasets_and_jobs_are_changed_only_as_they_were_seen(settings):
    with client_of(settings) as client:
        dataset = client.post("/v1/datasets", content=npz(6)).json()
        etag = client.get(f"/v1/datasets/{dataset['id']}").headers["ETag"]
        job = f"/v1/jobs/{dataset['job_id']}"
        job_etag = client.get(job).headers["ETag"]

        assert client.post(f"{job}/cancel", headers={"If-Match": '"0"'}).status_code == 412
        assert client.post(f"{job}/cancel", headers={"If-Match": job_etag}).status_code == 202
        assert client.post(f"{job}/retry", headers={"If-Match": job_etag}).status_code == 412
        assert client.delete(f"/v1/datasets/{dataset['id']}", headers={"If-Match": etag}).status_code == 412
        now = client.get(f"/v1/datasets/{dataset['id']}").headers["ETag"]
        assert client.delete(f"/v1/datasets/{dataset['id']}", headers={"If-Match": now}).status_code == 202


@pytest.mark.parametrize(
    "address", ["/v1/models?stat=ready", "/v1/datasets?cursors=x", "/v1/jobs?state=failed&knd=train"]
)
def test_a_parameter_nobody_knows_is_refused_by_name(trained, address):
    """A misspelt filter must not look as if it had filtered."""
    client, _, _ = trained
    response = client.get(address)

    assert (response.status_code, response.json()["code"]) == (422, "validation_failed")
    name = address.replace("&", "?").split("?")[-1].split("=")[0]
    assert [error["field"] for error in response.json()["errors"]] == [f"query.{name}"]
