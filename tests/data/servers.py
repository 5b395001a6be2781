"""A server on the loopback that serves files, cuts some, and counts what it was asked for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serve(files: dict[str, bytes], *, cut: dict[str, int] | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serve files by name; of a name in `cut`, so many next answers announce all bytes and send a third."""
    asked: list[str] = []
    cuts = dict(cut or {})

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            asked.append(self.path.rsplit("/", 1)[-1])
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            name = self.path.rsplit("/", 1)[-1]
            if name not in files:
                self.send_error(404)
                return
            content = files[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if not body:
                return
            if cuts.get(name, 0) > 0:
                cuts[name] -= 1
                content = content[: len(content) // 3]
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
