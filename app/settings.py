"""Every environment variable of the service. Names are the fields' with the prefix `CLUSTERSERVE_`."""

import ipaddress
from functools import lru_cache
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read once at start and passed on. The defaults are the laptop's: SQLite and a folder."""

    model_config = SettingsConfigDict(env_prefix="CLUSTERSERVE_", frozen=True, extra="ignore")

    data_dir: Path = Field(Path("clusterserve-data"), description="where SQLite, blobs, logs and scratch files live")
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite in the data folder")
    storage_url: str = Field("", description="`s3://bucket[/prefix]` or empty: a folder in the data folder")
    s3_endpoint: str = Field("", description="address of an S3-compatible server; empty: AWS")
    s3_region: str = "us-east-1"
    s3_access_key: str = ""
    s3_secret_key: SecretStr = SecretStr("")
    database_pool: int = Field(10, ge=1, description="connections one process keeps to Postgres")
    broker_url: str = Field("redis://127.0.0.1:6379/0", description="Valkey or Redis, the doorbell of the queues")

    require_keys: bool = Field(False, description="callers must show an API key; without, only this machine may call")
    key_secret: SecretStr = Field(
        SecretStr(""), description="keys are hashed under it; empty: a file in the data folder"
    )

    max_requests_per_minute: int = Field(600, ge=1, description="of one key")
    max_new_jobs_per_minute: int = Field(20, ge=1, description="of one key: jobs, and datasets to be ingested")

    webhook_allow_private: bool = Field(
        False, description="webhooks may lead into the service's own network, and be plain HTTP"
    )
    deliver_s: float = Field(1, gt=0, description="how often messages to webhooks are looked for")

    cors_origins: str = Field(
        "", description="origins whose pages may call from a browser, with commas, or `*`; empty: none"
    )
    root_path: str = Field("", pattern="^(/.*[^/])?$", description="where a proxy serves this, as `/clusters`")

    log_level: str = "INFO"
    log_format: str = Field("console", pattern="^(console|json)$")

    otlp_endpoint: str = Field("", description="where traces go, `http://collector:4318`; needs the extra `otel`")

    lease_s: float = Field(60, gt=0, description="how long a claimed job stays claimed without renewal")
    renew_s: float = Field(10, gt=0, description="how often a supervisor renews its lease")
    reconcile_s: float = Field(5, gt=0, description="how often lost rings and lost leases are repaired")
    sweep_s: float = Field(300, gt=0, description="how often unpublished files are removed")
    terminate_s: float = Field(20, gt=0, description="time a runner has to checkpoint before it is killed")
    stall_s: float = Field(1800, gt=0, description="a runner silent for this long is taken for hung")
    max_attempts: int = Field(3, ge=1)
    max_running_jobs: int = Field(4, ge=1, description="jobs of one queue that one tenant may have running at once")
    max_queued_jobs: int = Field(100, ge=1, description="jobs that one tenant may have waiting")
    max_tenant_bytes: int = Field(0, ge=0, description="of uploads and datasets one tenant may keep; 0: any number")
    max_tenant_images: int = Field(0, ge=0, description="of all datasets one tenant may keep; 0: any number")
    assign_part_images: int = Field(250_000, ge=1, description="images of one part of an `assign` job")
    gpu_queue: bool = Field(False, description="workers with GPUs listen to `train-gpu`: deep methods go there")
    gpus: str = Field("", description="devices of a worker on `train-gpu`, one training each; empty: all it sees")
    worker_metrics: str = Field("", description="HOST:PORT on which a worker answers Prometheus; empty: none")
    runner_threads: int = Field(0, ge=0, description="threads of one runner; 0: all cores")
    device_memory_share: float = Field(
        0.5, ge=0, le=1, description="share of a GPU's free memory that a training's inputs may take"
    )
    max_map_images: int = Field(20_000, ge=0, description="images on a model's 2-D map; 0: no map")
    abandoned_upload_s: float = Field(86_400, gt=0, description="when an upload nobody finished is removed")
    idempotency_s: float = Field(86_400, gt=0, description="how long an idempotency key is remembered")
    keep_events_s: float = Field(30 * 86_400, gt=0, description="how long events of an ended job are kept")
    keep_jobs_s: float = Field(90 * 86_400, gt=0, description="how long an ended job is kept")
    keep_audit_s: float = Field(365 * 86_400, gt=0, description="how long audit events are kept")
    keep_checkpoints_s: float = Field(7 * 86_400, gt=0, description="how long a failed training can be retried midway")

    max_json_bytes: int = 1 << 20
    max_image_bytes: int = Field(32 << 20, description="one image, alone or in an archive")
    max_archive_entries: int = Field(2_000_000, description="files in one archive")
    max_unpacked_ratio: int = Field(10, description="unpacked : packed bytes of one archive")
    max_entry_ratio: int = Field(200, description="unpacked : packed bytes of one file in an archive")
    max_dataset_pixels: int = Field(50_000_000, description="width x height of an image in a dataset")
    max_assign_pixels: int = Field(50_000_000, description="width x height of an image at `assign`")
    max_ingest_memory_bytes: int = Field(4 << 30, description="memory of the runner that reads an uploaded file")
    max_image_side: int = Field(16_384, description="longer side of an image, in pixels")
    max_request_bytes: int = Field(64 << 20, description="one `assign` request")
    max_part_bytes: int = Field(64 << 20, description="one part of an upload")
    max_upload_bytes: int = Field(200 * 10**9, description="one uploaded archive")
    max_assign_images: int = Field(100, description="images of one multipart `assign` request")
    max_batch_inputs: int = Field(10_000, description="images or vectors of one array in one `assign` request")
    max_waiting_images: int = Field(
        4096, description="images of all `assign` requests one API process works on at once"
    )
    max_waiting_bytes: int = Field(256 << 20, description="bodies of all `assign` requests it holds at once")
    assign_deadline_s: float = Field(10, gt=0, description="how long an `assign` request waits for its turn")
    max_decoded_bytes: int = Field(96 << 20, description="decoded pixels one API process holds at a time")
    model_cache_bytes: int = Field(256 << 20, description="model files kept loaded by one API process")

    @property
    def resolved_database_url(self) -> str:
        """`database_url`, or the SQLite file in the data folder."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'clusterserve.db').resolve()}"

    @property
    def resolved_storage_url(self) -> str:
        """`storage_url`, or the blob folder in the data folder."""
        return self.storage_url or f"file://{(self.data_dir / 'blobs').resolve()}"

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for a child process."""
        variables = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            variables[f"CLUSTERSERVE_{name.upper()}"] = str(plain)
        return variables


@lru_cache(64)  # callers choose what it is asked, and how long that is
def is_local(host: str | None) -> bool:
    """Whether a host's name or address means this machine and nothing else."""
    if host is None or host == "localhost":
        return host == "localhost"
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
