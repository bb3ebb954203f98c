"""How the service's methods meet gRPC: bytes that are no request reach the front as MALFORMED, and are refused there.

Left to itself gRPC answers them with UNKNOWN and the text of an exception.
"""

from collections.abc import Callable
from typing import Any, Final

import grpc
from google.protobuf import message, message_factory

from services._pb import inference_pb2


class Malformed:
    """Stands for a request whose bytes were none."""


MALFORMED: Final = Malformed()
_HANDLERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
}


def method_names() -> dict[str, str]:
    """The service's methods: as HTTP/2 calls them -> as the .proto file does."""
    service = inference_pb2.DESCRIPTOR.services_by_name["Inference"]
    return {f"/{service.full_name}/{method.name}": method.name for method in service.methods}


def service_handler(front: Any) -> Any:
    """The generic handler of all methods of the service."""
    service = inference_pb2.DESCRIPTOR.services_by_name["Inference"]
    methods = {}
    for method in service.methods:
        read = message_factory.GetMessageClass(method.input_type).FromString
        write = message_factory.GetMessageClass(method.output_type).SerializeToString
        kind = _HANDLERS[method.client_streaming, method.server_streaming]
        methods[method.name] = kind(getattr(front, method.name), _tolerant(read), write)
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def _tolerant(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def reader(content: bytes) -> Any:
        try:
            return read(content)
        except (message.DecodeError, ValueError):
            return MALFORMED

    return reader
