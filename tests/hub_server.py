"""A stand-in for huggingface.co on a loopback port: data sets with commits and branches, and ways to fail."""

import hashlib
import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class HubServer(ThreadingHTTPServer):
    """`with HubServer() as server:` answers at `server.url`; `server.commit(files)` moves a branch.

    `asked` counts the requests by kind; `failures` are, by file, what to do in place of answering
    the next GET: a number is an HTTP status, "breaks" a connection that ends in the middle. `refusal` answers
    everything: an HTTP status and the hub's word for it.
    """

    daemon_threads = True

    def __init__(self, name="owner/shapes"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url, self.name = f"http://127.0.0.1:{self.server_port}", name
        self.branches, self.commits = {}, {}  # name -> commit, commit -> {file: bytes}
        self.asked, self.failures, self.refusal = Counter(), {}, None

    def commit(self, files, branch="main"):
        """Put files into a branch; the new commit."""
        content = json.dumps({file: hashlib.sha1(data).hexdigest() for file, data in files.items()})
        commit = hashlib.sha1(f"{branch} {content}".encode()).hexdigest()
        self.commits[commit], self.branches[branch] = dict(files), commit
        return commit

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.shutdown()
        self.server_close()

    def handle_error(self, *request):
        """Nothing: clients hang up as they like."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path, name = unquote(urlsplit(self.path).path), self.server.name
        if self.server.refusal:
            self.server.asked["refused"] += 1
            return self.refuse(*self.server.refusal)
        if path == f"/api/datasets/{name}":
            return self.tell("revision", {"id": name, "sha": self.server.branches["main"]})
        if match := re.fullmatch(f"/api/datasets/{name}/(revision|tree)/(.+)", path):
            kind, revision = match.groups()
            commit = self.server.branches.get(revision, revision)
            if commit not in self.server.commits:
                return self.refuse(404, "RevisionNotFound")
            if kind == "revision":
                return self.tell(kind, {"id": name, "sha": commit})
            files = self.server.commits[commit].items()
            tree = [{"type": "file", "path": f, "size": len(d), "oid": etag(d)} for f, d in files]
            return self.tell(kind, tree)
        if match := re.fullmatch(f"/datasets/{name}/resolve/([0-9a-f]{{40}})/(.+)", path):
            return self.give(*match.groups())
        return self.refuse(404, "RepoNotFound")

    def tell(self, kind, content):
        self.server.asked[kind] += 1
        self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def give(self, commit, file):
        self.server.asked[f"{self.command} {file}"] += 1
        data = self.server.commits[commit].get(file)
        if data is None:
            return self.refuse(404, "EntryNotFound")
        headers = {"ETag": f'"{etag(data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        failures = self.server.failures.get(file) if self.command == "GET" else None
        failure = failures.pop(0) if failures else None
        if isinstance(failure, int):
            return self.refuse(failure, "")
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(start[1]) if start else 0
        if start:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        broken = 100 if failure == "breaks" else None
        return self.answer(206 if start else 200, data[first:], headers, broken)

    def refuse(self, status, code):
        self.answer(status, b"", {"X-Error-Code": code})

    def answer(self, status, body, headers, broken=None):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": len(body)}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:broken])
        self.close_connection = broken is not None

    def log_message(self, *args):
        pass


def etag(data):
    return hashlib.sha1(data).hexdigest()
