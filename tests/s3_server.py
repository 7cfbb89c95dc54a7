"""An S3 server on loopback for tests: moto's, behind a proxy that fails on request as real stores do."""

import http.client
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread

import pyarrow.fs

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

Fault = Callable[["_Proxy", bytes], None]
"""Answers a request, given the body that the server would have sent."""


@dataclass
class S3Server:
    """A running server. Faults are taken from `faults`, the first one first, by requests for objects."""

    endpoint: str
    filesystem: pyarrow.fs.S3FileSystem
    """Goes past the proxy."""
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """'GET /bucket/key' of each request that came through the proxy."""
    closing: Event = field(default_factory=Event)
    lock: Lock = field(default_factory=Lock)

    def take_fault(self) -> Fault | None:
        with self.lock:
            return self.faults.pop(0) if self.faults else None


def fails_with(status: int, code: str) -> Fault:
    """An S3 error."""

    def answer(proxy: "_Proxy", body: bytes) -> None:
        document = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        proxy.answer(status, {"Content-Type": "application/xml", "Content-Length": str(len(document))}, document)

    return answer


def stops_in_the_middle(proxy: "_Proxy", body: bytes) -> None:
    """Promise the whole body, send half of it and hang up."""
    proxy.answer(206, {"Content-Length": str(len(body))}, body[: len(body) // 2])
    proxy.close_connection = True


def stalls_in_the_middle(proxy: "_Proxy", body: bytes) -> None:
    """Promise the whole body, send half of it and then nothing."""
    proxy.answer(206, {"Content-Length": str(len(body))}, body[: len(body) // 2])
    proxy.state.closing.wait(30)
    proxy.close_connection = True


def answers_after(seconds: float) -> Fault:
    """The right answer, late."""

    def answer(proxy: "_Proxy", body: bytes) -> None:
        proxy.state.closing.wait(seconds)
        proxy.answer(206, {"Content-Length": str(len(body))}, body)

    return answer


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: S3Server
    upstream: tuple[str, int]

    def do_GET(self) -> None:
        self.state.requests.append(f"{self.command} {self.path.partition('?')[0]}")
        connection = http.client.HTTPConnection(*self.upstream)
        connection.request(self.command, self.path, headers=dict(self.headers))
        response = connection.getresponse()
        body = response.read()
        connection.close()
        fault = self.state.take_fault() if self.command == "GET" and response.status in (200, 206) else None
        if fault is not None:
            fault(self, body)
            return
        headers = {name: value for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP}
        self.answer(response.status, {**headers, "Content-Length": headers.get("Content-Length", str(len(body)))}, body)

    do_HEAD = do_GET

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


_HOP_BY_HOP = {"connection", "transfer-encoding", "date", "server"}


@contextmanager
def s3_server(bucket: str) -> Iterator[S3Server]:
    """Run a server with an empty bucket; `ENVIRONMENT` and AWS_ENDPOINT_URL must be what clients see."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    upstream = moto.get_host_and_port()
    filesystem = pyarrow.fs.S3FileSystem(
        access_key="test",
        secret_key="test",
        region="us-east-1",
        scheme="http",
        endpoint_override=f"{upstream[0]}:{upstream[1]}",
        allow_bucket_creation=True,
    )
    filesystem.create_dir(bucket)
    handler = type("Proxy", (_Proxy,), {"upstream": upstream})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    proxy.daemon_threads = True
    state = S3Server(endpoint=f"http://127.0.0.1:{proxy.server_port}", filesystem=filesystem)
    handler.state = state
    thread = Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        state.closing.set()
        proxy.shutdown()
        proxy.server_close()
        thread.join()
        moto.stop()


def client_environment(server: S3Server) -> dict[str, str]:
    """What a client's environment must hold to talk to the server."""
    return {**ENVIRONMENT, "AWS_ENDPOINT_URL": server.endpoint, "PATH": os.environ["PATH"]}
