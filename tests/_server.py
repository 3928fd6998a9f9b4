"""A server on the loopback that sends files of a dict, whole, in ranges or broken off."""

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Server(http.server.BaseHTTPRequestHandler):
    """Sends files of a dict; `broken` bytes end the first answers early."""

    def __init__(self, state, *args):
        self.state = state
        super().__init__(*args)

    def do_GET(self):
        content = self.state["files"].get(self.path.split("?")[0])
        if content is None:
            return self.send_error(404)
        begun, asked = 0, self.headers.get("Range")
        self.state["ranges"].append(asked)
        if asked and self.state["ranged"]:
            begun = int(asked.removeprefix("bytes=").rstrip("-"))
            if begun >= len(content):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begun}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - begun))
        self.end_headers()
        broken = self.state["broken"].pop() if self.state["broken"] else None
        self.wfile.write(content[begun:][:broken])

    def log_message(self, *_):
        pass


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[dict]:
    """Serve files by path; the state also holds `url`, `ranges` asked for, and what to break."""
    state = {"files": files, "ranges": [], "ranged": True, "broken": []}
    handler = functools.partial(Server, state)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        state["url"] = f"http://127.0.0.1:{running.server_port}"
        yield state
        running.shutdown()
        thread.join()
