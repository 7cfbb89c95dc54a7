"""Metadata servers of clouds, on loopback, as strict as the real ones; what they announce lies in files of a folder.

As a program on a host of a test: `python -m tests.metadata_servers aws|gcp|azure PORT FOLDER`.
"""

import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Server(ThreadingHTTPServer):
    """A metadata server that remembers who asked what."""

    daemon_threads = True

    def __init__(self, handler: type["Metadata"], folder: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.folder = folder
        self.asked: list[str] = []
        """'METHOD path -> status', oldest first."""
        self.tokens: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Metadata(BaseHTTPRequestHandler):
    server: Server
    wbufsize = -1  # head and body in one packet

    def log_message(self, *_: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def file(self, name: str) -> str | None:
        path = self.server.folder / name
        return path.read_text() if path.exists() else None

    def reply(self, status: int, text: str = "", **headers: str) -> None:
        self.server.asked.append(f"{self.command} {self.path} -> {status}")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def body(self) -> str:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()


class AwsMetadata(Metadata):
    """Version 2 alone: without a token of its own it answers 401, and it gives none to a forwarded request."""

    def do_PUT(self) -> None:
        ttl = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if self.path != "/latest/api/token" or not ttl.isdigit() or not 1 <= int(ttl) <= 21600:
            self.reply(400)
        elif self.headers.get("X-Forwarded-For"):
            self.reply(403)
        else:
            token = secrets.token_urlsafe(32)
            self.server.tokens.add(token)
            self.reply(200, token, X_aws_ec2_metadata_token_ttl_seconds=ttl)

    def do_GET(self) -> None:
        files = {
            "/latest/meta-data/spot/instance-action": "instance-action",
            "/latest/meta-data/events/recommendations/rebalance": "rebalance",
        }
        if self.headers.get("X-aws-ec2-metadata-token") not in self.server.tokens:
            self.reply(401)
        elif (text := self.file(files[self.path])) is None:
            self.reply(404, "<?xml ... 404 - Not Found")
        else:
            self.reply(200, text)


GCP_USUAL = {"preempted": "FALSE", "maintenance-event": "NONE"}


class GcpMetadata(Metadata):
    """Asks for the header, and holds a question with `wait_for_change` until the value has another ETag."""

    def do_GET(self) -> None:
        if self.headers.get("Metadata-Flavor") != "Google" or self.headers.get("X-Forwarded-For"):
            self.reply(403, Metadata_Flavor="Google")
            return
        parts, query = urlsplit(self.path), parse_qs(urlsplit(self.path).query)
        key = parts.path.removeprefix("/computeMetadata/v1/instance/")
        deadline = monotonic() + float(query.get("timeout_sec", ["0"])[0])
        while True:
            value = self.file(key) or GCP_USUAL[key]
            etag = f"{hash(value) & 0xFFFFFFFFFFFFFFFF:x}"
            if "wait_for_change" not in query or query.get("last_etag") != [etag] or monotonic() > deadline:
                break
            sleep(0.01)
        self.reply(200, value, Metadata_Flavor="Google", ETag=etag)


class AzureMetadata(Metadata):
    """Asks for the header; an event begins when it is acknowledged."""

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        if self.headers.get("Metadata") != "true" or "api-version" not in parse_qs(path.query):
            self.reply(400)
        elif path.path == "/metadata/instance/compute/name":
            self.reply(200, "vm_3")
        else:
            self.reply(200, self.file("events") or json.dumps({"DocumentIncarnation": 1, "Events": []}))

    def do_POST(self) -> None:
        if self.headers.get("Metadata") != "true":
            self.reply(400)
            return
        (request,) = json.loads(self.body())["StartRequests"]
        (self.server.folder / "acknowledged").write_text(request["EventId"])
        self.reply(200)


CLOUDS: dict[str, type[Metadata]] = {"aws": AwsMetadata, "gcp": GcpMetadata, "azure": AzureMetadata}


@contextmanager
def serving(handler: type[Metadata], folder: Path) -> Iterator[Server]:
    """A server in this process."""
    server = Server(handler, folder)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def main() -> None:
    name, port, folder = sys.argv[1:]
    Server(CLOUDS[name], Path(folder), int(port)).serve_forever()


if __name__ == "__main__":
    main()
