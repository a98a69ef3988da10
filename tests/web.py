"""A web server on the loopback that serves a folder, and can be told to fail."""

import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        name = self.path.lstrip("/")
        self.server.asked[name] += 1
        failures = self.server.failures.get(name, [])
        if not failures:
            return super().do_GET()
        failure = failures.pop(0)
        if isinstance(failure, int):
            return self.send_error(failure)
        self.send_response(200)  # a connection that breaks after some bytes
        self.send_header("Content-Length", str(Path(self.directory, name).stat().st_size))
        self.end_headers()
        self.wfile.write(Path(self.directory, name).read_bytes()[:100])
        self.close_connection = True
        return None

    def log_message(self, *args):
        pass


class Web:
    """Context that serves `folder` at `url`; `failures` are, by name, what to do in place of answering.

    A number is an HTTP status, "breaks" a connection that ends in the middle.
    """

    def __init__(self, folder, **failures):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.server.asked, self.server.failures = Counter(), failures
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"

    @property
    def asked(self):
        return self.server.asked

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
