"""One question to grpc.health.v1."""

from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.addresses import is_loopback

SERVICE_NAME = "thex.v1.Inference"


def ask_health(target: str, authority: Path | None, *, insecure: bool, live: bool, seconds: float) -> str:
    """SERVING, NOT_SERVING, or why there was no answer."""
    if insecure:
        if not is_loopback(target):
            raise ValueError(f"{target} is not a loopback address; --insecure asks loopback addresses only")
        channel = grpc.insecure_channel(target)
    else:
        roots = None if authority is None else authority.read_bytes()
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(roots))
    with channel:
        request = health_pb2.HealthCheckRequest(service="" if live else SERVICE_NAME)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=seconds)
        except grpc.RpcError as error:
            return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
