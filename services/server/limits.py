"""Every limit of the server in one place; printed when it starts.

Each is a field of the `[limits]` table of the configuration file, a variable THEX_LIMITS__NAME, or an option
`thex serve --set limits.NAME=VALUE`.
"""

from pydantic import BaseModel, ConfigDict, Field

GIBIBYTE = 1 << 30


class Limits(BaseModel):
    """What strangers may take. Bytes and seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    message_bytes: int = Field(32 << 20, ge=1 << 16)
    """Largest gRPC message: a query of the largest bucket fits."""
    chunk_bytes: int = Field(4 << 20, ge=1 << 10)
    """Largest chunk of a key."""
    metadata_bytes: int = Field(16 << 10, ge=1 << 10)
    """Largest set of headers of one call."""
    concurrent_calls: int = Field(256, ge=1)
    """gRPC calls at a time, health checks included."""
    health_watches: int = Field(16, ge=1)
    """Streams of health changes at a time."""
    uploads: int = Field(16, ge=1)
    """Uploads at a time."""
    uploads_per_client: int = Field(2, ge=1)
    """Uploads of one client at a time."""
    requests_per_client: int = Field(2, ge=1)
    """Queries of one client that compute or wait at a time."""
    queued_requests: int = Field(8, ge=0)
    """Jobs that may wait for a worker."""
    request_seconds: float = Field(300.0, gt=0)
    """Longest a job may compute, by the wall clock; its processor time is bounded by this times the worker's threads."""
    receive_seconds: float = Field(240.0, gt=0)
    """Longest that a request may take to arrive whole: the largest does at a megabit a second."""
    idle_seconds: float = Field(30.0, gt=0)
    """Longest that an upload may send nothing, or a health check take to arrive."""
    upload_seconds: float = Field(3600.0, gt=0)
    """Longest that one upload call may take."""
    key_sets_per_client: int = Field(2, ge=1)
    """Key sets that one client may keep."""
    key_store_bytes: int = Field(16 * GIBIBYTE, ge=0)
    """Budget of all keys on disk: the set that was longest unused makes room for a new one."""
    key_store_seconds: float = Field(7 * 86400.0, gt=0)
    """Keys unused for so long are deleted; time during which the server is down does not count."""
    unfinished_seconds: float = Field(6 * 3600.0, gt=0)
    """Uploads that nobody resumes for so long are deleted."""
    sweep_seconds: float = Field(60.0, gt=0)
    """Between two looks for key sets that are to go for their age."""
    disk_reserve_bytes: int = Field(GIBIBYTE, ge=0)
    """Free space that uploads leave on the disk; below it the server is not ready."""
    worker_memory_bytes: int = Field(16 * GIBIBYTE, ge=0)
    """Address space of a worker; 0 for no limit."""
    worker_files: int = Field(256, ge=32)
    """Files that a worker may have open."""
    loaded_key_sets: int = Field(2, ge=1)
    """Key sets that a worker holds in memory; each takes about 0.8 GB for the shipped model."""
    notice_seconds: float = Field(2.0, ge=0)
    """Between saying NOT_SERVING and refusing connections: what a balancer needs to notice."""
    drain_seconds: float = Field(60.0, ge=0)
    """How long running requests may go on after SIGTERM."""
