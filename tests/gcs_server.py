"""A Google Cloud Storage server on loopback for tests: gcp-storage-emulator, told to fail as real stores do.

It runs in a process of its own: pyarrow's client waits for its streams with Python's lock held.
"""

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

FAIL = "/fail-next/"
HANGS_UP = 0


@dataclass(frozen=True)
class GcsServer:
    """A running server."""

    endpoint: str
    bucket: str

    def fail_next(self, status: int) -> None:
        """Answer the next question with a status, or, for HANGS_UP, the next download with the beginning of a body."""
        urllib.request.urlopen(f"{self.endpoint}{FAIL}{status}").close()

    def upload(self, root: Path, prefix: str) -> None:
        """Put the shard set of a folder under a prefix."""
        for path in (*root.glob("*.tar"), *root.glob("*.arrow")):
            name = quote(f"{prefix}/{path.name}", safe="")
            url = f"{self.endpoint}/upload/storage/v1/b/{self.bucket}/o?uploadType=media&name={name}"
            request = urllib.request.Request(url, path.read_bytes(), {"Content-Type": "application/octet-stream"})
            urllib.request.urlopen(request).close()


@contextmanager
def gcs_server(bucket: str) -> Iterator[GcsServer]:
    """Run a server with an empty bucket; STORAGE_EMULATOR_HOST must be its endpoint for clients."""
    command = [sys.executable, "-m", "tests.gcs_server", bucket]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield GcsServer(endpoint=process.stdout.readline().strip(), bucket=bucket)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def serve(bucket: str) -> None:
    from gcp_storage_emulator import server as emulator

    faults: list[int] = []

    class Handler(emulator.RequestHandler):
        def do_GET(self) -> None:
            is_download = "alt=media" in self.path or not self.path.startswith("/storage/")
            if self.path.startswith(FAIL):
                faults.append(int(self.path.removeprefix(FAIL)))
                self.answer(200, 0)
            elif faults and (is_download or faults[0] != HANGS_UP):
                status = faults.pop(0)
                self.answer(status or 200, 0 if status else 10**6)
            else:
                super().do_GET()

        def answer(self, status: int, promised: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(promised))
            self.end_headers()
            self.wfile.write(bytes(min(promised, 100)))
            self.close_connection = True

    emulator.HTTPServer = emulator.server.HTTPServer = ThreadingHTTPServer  # the client keeps connections open
    emulator.RequestHandler = Handler
    running = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket=bucket)
    running.start()
    print(f"http://127.0.0.1:{running._api._httpd.server_port}", flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
