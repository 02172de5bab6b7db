"""The web server of the rows that download: on the loopback, for as long as a module's tests."""

import contextlib
import threading
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODIFIED_S = 981_173_106
"""When every file here was last changed: 2001-02-03T04:05:06Z."""


class _Handler(BaseHTTPRequestHandler):
    """`/new` and `/big` are files; `/cut` and `/slow` send half of big, and hang up, or wait.

    Who asks for a range gets it whole, from `/cut` as well, so that a download can be continued.
    """

    files: dict[str, bytes]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""

    def _answer(self, *, with_body: bool) -> None:
        name = self.path.strip("/")
        content = self.files[name]
        asked = self.headers.get("Range")
        start, stop = 0, len(content)
        if asked is not None:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start = int(first)
            stop = int(last) + 1 if last else stop
        self.send_response(200 if asked is None else 206)
        if asked is not None:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Last-Modified", formatdate(MODIFIED_S, usegmt=True))
        self.end_headers()
        if not with_body:
            return
        if name in ("cut", "slow") and asked is None:
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            if name == "slow":
                # Until the client is gone.
                self.connection.recv(1)
            return
        self.wfile.write(content[start:stop])


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no news."""


@contextlib.contextmanager
def serve(files: dict[str, bytes]) -> Iterator[str]:
    """Serve files by name; gives the URL that they are below."""
    handler = type("Handler", (_Handler,), {"files": files})
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
