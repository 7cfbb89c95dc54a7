"""Calls ports of a host as a stranger would: `python -m tests.multihost.caller HOST PORTS all|control [TOKEN]`.

Prints one JSON object: port to what HTTP paths and gRPC methods answered there.
"""

import http.client
import importlib
import json
import pkgutil
import sys

import grpc
import ray.core.generated

PATHS = ("/", "/metrics", "/api/jobs/", "/api/v0/nodes", "/nodes?view=summary", "/api/version", "/logs")
CONTROL = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"
"""What the right token may ask: it changes nothing."""


def methods() -> list[str]:
    """Every gRPC method of Ray's services. The object manager's have no description in Ray's Python package."""
    found = ["/ray.rpc.ObjectManagerService/Pull", "/ray.rpc.ObjectManagerService/Push"]
    for module in pkgutil.iter_modules(ray.core.generated.__path__):
        if module.name.endswith("_pb2"):
            services = importlib.import_module(f"ray.core.generated.{module.name}").DESCRIPTOR.services_by_name
            found += [
                f"/{service.full_name}/{method.name}" for service in services.values() for method in service.methods
            ]
    return found


def main() -> None:
    """Call, print, end."""
    host, ports, which, *token = sys.argv[1:]
    header = {"authorization": f"Bearer {token[0]}"} if token else {}
    asked = methods() if which == "all" else [CONTROL]
    print(
        json.dumps(
            {
                port: {"http": _over_http(host, int(port), header), "grpc": _over_grpc(host, port, header, asked)}
                for port in ports.split(",")
            }
        )
    )


def _over_http(host: str, port: int, header: dict[str, str]) -> dict[str, str]:
    answers = {}
    for path in PATHS:
        connection = http.client.HTTPConnection(host, port, timeout=3)
        try:
            connection.request("GET", path, headers=header)
            answers[path] = str(connection.getresponse().status)
        except (OSError, http.client.HTTPException) as error:
            answers[path] = type(error).__name__
        finally:
            connection.close()
    return answers


def _over_grpc(host: str, port: str, header: dict[str, str], asked: list[str]) -> dict[str, str]:
    answers = {}
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        for method in asked:
            try:
                channel.unary_unary(method)(b"", timeout=3, metadata=tuple(header.items()))
                answers[method] = "OK"
            except grpc.RpcError as error:
                answers[method] = error.code().name
    return answers


if __name__ == "__main__":
    main()
