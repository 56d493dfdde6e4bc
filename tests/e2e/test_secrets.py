"""What must stay secret is in no log, however talkative the service is."""

import os
import subprocess
import sys

from tests import service
from tests.factories import npz
from tests.servers import wait_until

PLANTED = "planted-and-found-nowhere"


def test_no_log_holds_a_key_or_a_secret(tmp_path):
    settings = {
        "CLUSTERSERVE_REQUIRE_KEYS": "true",
        "CLUSTERSERVE_KEY_SECRET": PLANTED,
        "CLUSTERSERVE_S3_SECRET_KEY": PLANTED,
        "CLUSTERSERVE_LOG_LEVEL": "DEBUG",
        "CLUSTERSERVE_WEBHOOK_ALLOW_PRIVATE": "true",
    }
    folder = tmp_path / "data"
    with service.running(folder, **settings) as up:
        command = [sys.executable, "-m", "clusterserve", "keys", "create"]
        environment = os.environ | settings | {"CLUSTERSERVE_DATA_DIR": str(folder)}
        made = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()[-1]
        http, mine = up.client._http, {"Authorization": f"Bearer {made}"}
        webhook = http.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"}, headers=mine).json()
        dataset = http.post("/v1/datasets", content=npz(12), headers=mine | {"Prefer": "wait=60"}).json()
        for path in ("/v1/jobs", "/v1/jobs/job_x", f"/v1/datasets/{dataset['id']}/images/99", "/v1/models?cursor=x"):
            http.get(path, headers=mine)
        http.get("/v1/jobs", headers={"Authorization": f"Bearer {made}wrong"})
        http.post("/v1/datasets", content=b"no dataset", headers=mine)
        deliveries = f"/v1/webhooks/{webhook['id']}/deliveries"
        wait_until(lambda: http.get(deliveries, headers=mine).json()["items"][0]["attempt"] > 0, 30, "a delivery")

    logs = [tmp_path / "up.log", *(folder / "logs").glob("*")]
    text = "\n".join(path.read_text(errors="replace") for path in logs)
    assert dataset["state"] == "ready"
    assert dataset["job_id"] in text  # these are the logs
    for secret in (PLANTED, made.split("_", 2)[2], webhook["secret"]):
        assert secret not in text
