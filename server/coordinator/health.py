"""Whether the SuperLink is well, asked by the gRPC health checking protocol."""

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

TIMEOUT_S = 5.0


def is_serving(address: str) -> bool:
    """Return whether a health server says that its program serves.

    Args:
        address: host and port; without TLS, for it is one of this machine only.
    """
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError:
            return False
    return bool(answer.status == HealthCheckResponse.SERVING)
