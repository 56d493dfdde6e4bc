"""What the service runs on: licences that let anybody use it."""

import json
import re
from importlib import metadata

from packaging.requirements import Requirement

from tests.repo.audit import report

PERMISSIVE = re.compile(r"\b(MIT|0?BSD|Apache|ISC|PSF|Zlib|CC0|BSL)\b", re.IGNORECASE)
COPYLEFT = re.compile(r"GPL|MPL|Mozilla|EUPL|CDDL|EPL", re.IGNORECASE)
# Copyleft that ends at the library's own files, which we use as they come.
USED_UNCHANGED = {
    "certifi": "MPL-2.0: the certificates, by way of `requests`",
    "pi-heif": "LGPL-3.0: libheif and libde265, which decode HEIC; their wheel is built without the GPL encoder",
    "psycopg": "LGPL-3.0: the driver of Postgres",
    "psycopg-binary": "LGPL-3.0: as above",
    "tqdm": "MPL-2.0: progress bars, by way of `umap-learn`",
}


def at_run_time() -> set[str]:
    """Names of all distributions that the service needs, its extras but the developers' included."""
    seen, waiting = set(), [("clusterserve", frozenset({"worker", "embedded", "otel"}))]
    while waiting:
        name, extras = one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
                waiting.append((needed.name.lower(), frozenset(needed.extras)))
    return {name for name, _ in seen}


def licence(name: str) -> str:
    found = metadata.metadata(name)
    classifiers = [text for text in found.get_all("Classifier") or [] if text.startswith("License ::")]
    return found["License-Expression"] or " ".join([*classifiers, (found["License"] or "")[:80]])


def test_every_licence_is_permissive_or_stays_with_its_library():
    names = at_run_time()
    licences = {name: licence(name) for name in names}
    copyleft = {name for name, text in licences.items() if COPYLEFT.search(text)}

    assert len(names) > 60
    assert copyleft == USED_UNCHANGED.keys() & names
    assert not [name for name, text in licences.items() if name not in copyleft and not PERMISSIVE.search(text)]


def test_the_audit_fails_for_a_known_vulnerability_and_says_where_it_is_mended():
    sound = {"name": "b", "version": "1", "vulns": []}
    broken = {"name": "a", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}

    assert report(json.dumps({"dependencies": [sound]})) == (0, ["Vulnerabilities: 1 packages checked, 0 have some"])
    status, lines = report(json.dumps({"dependencies": [broken, sound]}))
    assert (status, lines[0]) == (1, "a 1.0: PYSEC-1, mended in 1.1")


def test_an_audit_that_reached_nobody_does_not_say_that_all_is_well():
    unknown = {"dependencies": [{"name": "a", "skip_reason": "not found"}]}
    for found in ("", json.dumps(unknown)):
        status, (line,) = report(found)
        assert status == 0
        assert "not checked" in line
