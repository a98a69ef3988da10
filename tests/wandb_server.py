"""A stand-in for the W&B server on a loopback port: it answers the client and keeps what it is told."""

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0" * 40  # what the client takes for an API key


@dataclass
class Run:
    """What the server holds of one run."""

    identity: dict[str, Any] = field(default_factory=dict)  # project, groupName, displayName, jobType, tags
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    preempted: bool = False
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Artifact:
    """A version of an artifact; what is not committed does not exist for those who look."""

    name: str
    type: str
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False


class WandbServer(ThreadingHTTPServer):
    """`with WandbServer() as server:` answers at `server.url`; `server.runs[id]` is what it was told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.runs: dict[str, Run] = {}
        self.artifacts: list[Artifact] = []  # in the order of their versions

    def __enter__(self) -> "WandbServer":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *request: object) -> None:
        """Nothing: clients hang up as they like."""

    # The GraphQL operations, by their names

    def UpsertBucket(self, *, name: str, config: str | None, **variables: Any) -> dict[str, Any]:
        run = self.runs.setdefault(name, Run())
        run.identity |= {key: value for key, value in variables.items() if value}
        if config:
            run.config = {key: entry["value"] for key, entry in json.loads(config).items()}
        project = {"id": "0", "name": variables["project"], "entity": {"id": "0", "name": "somebody"}}
        bucket = {"id": name, "name": name, "project": project, "historyLineCount": len(run.history)}
        return {"upsertBucket": {"bucket": bucket, "inserted": not run.history}}

    def RunResumeStatus(self, *, name: str, **variables: Any) -> dict[str, Any]:
        if name not in self.runs:
            return {"model": {"id": "0", "name": "", "bucket": None}}
        run = self.runs[name]
        bucket = {
            "id": name,
            "name": name,
            "config": json.dumps({key: {"value": value} for key, value in run.config.items()}),
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(run.history),
            "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
            "tags": run.identity["tags"],
            "wandbConfig": '{"t": 1}',  # without it the run counts as never started
        }
        return {"model": {"id": "0", "name": "", "bucket": bucket}}

    def Viewer(self) -> dict[str, Any]:
        return {
            "viewer": {
                "id": "0",
                "entity": "somebody",
                "username": "somebody",
                "flags": "{}",
                "teams": {"edges": []},
            }
        }

    def ArtifactType(self, **variables: Any) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def CreateRunFiles(self, *, run: str, files: list[str], **variables: Any) -> dict[str, Any]:
        urls = [{"name": name, "uploadUrl": f"{self.url}/{run}/{name}"} for name in files]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": urls}}

    def CreateArtifact(self, *, input: dict[str, Any]) -> dict[str, Any]:
        self.artifacts.append(Artifact(input["artifactCollectionName"], input["artifactTypeName"]))
        artifact = {"id": str(len(self.artifacts) - 1), "state": "PENDING", "artifactSequence": {}}
        return {"createArtifact": {"artifact": artifact}}

    def CreateArtifactManifest(self, *, artifactID: str, **variables: Any) -> dict[str, Any]:
        file = {"id": "0", "uploadUrl": f"{self.url}/manifest/{artifactID}", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "0", "file": file}}}

    def CreateArtifactFiles(self, *, input: dict[str, Any]) -> dict[str, Any]:
        nodes = [
            {
                "storagePath": spec["name"],
                "uploadUrl": f"{self.url}/artifact/{spec['artifactID']}/{spec['name']}",
                "uploadHeaders": [],
                "artifact": {"id": spec["artifactID"]},
            }
            for spec in input["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def CommitArtifact(self, *, artifactID: str) -> dict[str, Any]:
        self.artifacts[int(artifactID)].committed = True
        return {"commitArtifact": {"artifact": {"id": artifactID, "digest": ""}}}

    # The other requests

    def upload(self, path: str, content: bytes) -> None:
        owner, _, name = path.strip("/").partition("/")
        if owner == "artifact":
            number, _, name = name.partition("/")
            self.artifacts[int(number)].files[name] = content
        elif owner != "manifest":
            self.runs[owner].files[name] = content

    def stream(self, path: str, sent: dict[str, Any]) -> None:
        run = self.runs[path.split("/")[-2]]
        for name, chunk in sent.get("files", {}).items():
            lines = [json.loads(line) for line in chunk["content"]]
            if name == "wandb-history.jsonl":
                run.history[chunk["offset"] :] = lines
            elif name == "wandb-summary.json":
                run.summary = lines[-1]
        run.exit_code = sent.get("exitcode", run.exit_code)
        run.preempted = sent.get("preempting", run.preempted)


class Handler(BaseHTTPRequestHandler):
    server: WandbServer
    protocol_version = "HTTP/1.1"

    def answer(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_PUT(self) -> None:
        self.server.upload(self.path, self.body())
        self.answer({})

    def do_POST(self) -> None:
        body = self.body()
        if self.path == "/graphql":
            asked = json.loads(body)
            operation = re.search(r"(query|mutation) (\w+)", asked["query"])[2]
            if answer := getattr(self.server, operation, None):
                self.answer({"data": answer(**asked.get("variables") or {})})
            else:
                self.answer({"errors": [{"message": f"{operation} is not served here"}]})
        else:
            if self.path.endswith("/file_stream"):
                self.server.stream(self.path, json.loads(body))
            self.answer({})

    def log_message(self, *message: object) -> None:
        """Nothing: tests read what was received, not a log."""
