"""A hub on this machine, over real HTTP: the calls that huggingface_hub makes, with tokens, commits and large files."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

TOKENS = {"hf_anna": "anna", "hf_bob": "bob"}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


def is_large(name: str) -> bool:
    return name.endswith(".safetensors")


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    private: bool
    commits: list[tuple[str, dict[str, bytes]]]
    tags: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1]
        return {commit: (commit, files) for commit, files in self.commits}.get(self.tags.get(revision, revision))

    def add(self, files: dict[str, bytes]) -> str:
        commit = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits.append((commit, files))
        return commit


class Hub(ThreadingHTTPServer):
    """Repositories by name, and what goes wrong next."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.cuts: list[int] = []  # after how many bytes the next answers with a large file end
        self.damaged: set[str] = set()  # names of files that are sent with other bytes
        self.requests: list[tuple[str, str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def make(self, name: str, files: dict[str, bytes], *, private: bool = False) -> Repository:
        made = self.repositories[name] = Repository(private, [])
        made.add({".gitattributes": b"*.safetensors filter=lfs\n"} | files)
        self.large |= {hashlib.sha256(one).hexdigest(): one for file, one in files.items() if is_large(file)}
        return made

    def asked(self, method: str, part: str) -> list[dict[str, str]]:
        """Headers of the requests with this in their path."""
        return [headers for verb, path, headers in self.requests if verb == method and part in path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.body = self.rfile.read(int(headers.get("content-length", 0)))
        path = unquote(self.path.partition("?")[0])
        self.server.requests.append((self.command, self.path, headers))
        if path.startswith("/cdn/"):
            assert "authorization" not in headers  # the token stays at the hub
            return self._large(path[5:])
        if path.startswith("/upload/"):
            self.server.large[path[8:]] = self.body
            return self._send(200, b"")
        token = headers.get("authorization", "").removeprefix("Bearer ")
        self.user = TOKENS.get(token)
        if token and self.user is None:
            return self._refuse(401, message="Invalid credentials in Authorization header")
        if path == "/api/validate-yaml":
            if "license: nonsense" in json.loads(self.body)["content"]:
                errors = [{"message": '"license" must be one of apache-2.0, mit'}]
                return self._send(400, json.dumps({"errors": errors, "warnings": []}).encode())
            return self._json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(self.body))
        found = re.fullmatch(r"(?:/api/models)?/([^/]+/[^/]+?)(\.git)?(?:/(.*))?", path)
        assert found, path
        return self._repository(found[1], found[3] or "")

    def _create(self, asked: dict[str, Any]) -> None:
        owner, name = asked["organization"], f"{asked['organization']}/{asked['name']}"
        if self.user != owner:
            return self._refuse(
                403, message=f"You don't have the rights to create a model under the namespace {owner!r}"
            )
        if name in self.server.repositories:
            return self._refuse(409, message="You already created this model repo")
        self.server.make(name, {}, private=asked.get("visibility") == "private")
        return self._json({"url": f"{self.server.url}/{name}"})

    def _repository(self, name: str, rest: str) -> None:
        found = self.server.repositories.get(name)
        owner = name.partition("/")[0]
        if found is None or (found.private and self.user != owner):
            return self._refuse(404 if self.user else 401, code="RepoNotFound", message="Repository not found")
        if found.gated and self.user != owner:
            return self._refuse(403, code="GatedRepo", message="Access is restricted")
        if rest.startswith(("preupload", "commit", "info/lfs")) and self.user != owner:
            return self._refuse(403, message="Forbidden: pass a token with write access")
        if rest == "info/lfs/objects/batch":
            return self._batch(json.loads(self.body)["objects"])
        kind, _, revision = rest.partition("/")
        if kind == "preupload":
            files = [one["path"] for one in json.loads(self.body)["files"]]
            modes = [("lfs" if is_large(file) else "regular", file) for file in files]
            return self._json({"files": [{"path": f, "uploadMode": m, "shouldIgnore": False} for m, f in modes]})
        if kind == "commit":
            return self._commit(name, found, [json.loads(line) for line in self.body.splitlines()])
        if kind == "resolve":
            commit, _, file = revision.partition("/")
            return self._resolve(name, found, commit, file)
        at = found.at(revision or "main")
        if at is None:
            return self._refuse(404, code="RevisionNotFound", message="Invalid rev id")
        siblings = [self._listed(file, content) for file, content in at[1].items()]
        return self._json({"id": name, "sha": at[0], "private": found.private, "siblings": siblings})

    def _listed(self, file: str, content: bytes) -> dict[str, Any]:
        if not is_large(file):
            return {"rfilename": file, "size": len(content), "blobId": git_hash(content)}
        digest = hashlib.sha256(content).hexdigest()
        pointer = POINTER.format(digest, len(content)).encode()
        lfs = {"sha256": digest, "size": len(content), "pointerSize": len(pointer)}
        return {"rfilename": file, "size": len(content), "blobId": git_hash(pointer), "lfs": lfs}

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        upload = f"{self.server.url}/upload/"
        answers = [one | {"actions": {"upload": {"href": upload + one["oid"]}}} for one in objects]
        return self._json({"transfer": "basic", "objects": answers})

    def _commit(self, name: str, found: Repository, lines: list[dict[str, Any]]) -> None:
        parent, files = found.commits[-1]
        files = dict(files)
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    if value.get("parentCommit", parent) != parent:
                        return self._refuse(412, message="A commit has happened since")
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.server.large[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        commit = found.add(files)
        return self._json({"commitUrl": f"{self.server.url}/{name}/commit/{commit}", "commitOid": commit})

    def _resolve(self, name: str, found: Repository, revision: str, file: str) -> None:
        at = found.at(revision)
        if at is None or file not in at[1]:
            return self._refuse(404, code="EntryNotFound", message="Entry not found")
        content = at[1][file]
        if is_large(file):
            digest = hashlib.sha256(content).hexdigest()
            headers = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)), "X-Repo-Commit": at[0]}
            place = f"http://localhost:{self.server.server_address[1]}/cdn/{digest}"  # another host than the hub's
            return self._send(302, b"", headers | {"Location": place})
        etag = git_hash(content)
        if file in self.server.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        return self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": at[0]})

    def _large(self, digest: str) -> None:
        content = self.server.large[digest]
        if any(is_large(name) for name in self.server.damaged):
            content = content[:-1] + bytes([content[-1] ^ 1])
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        until = self.server.cuts.pop(0) if self.server.cuts and self.command == "GET" else None
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if asked else {}
        self._send(206 if asked else 200, content[start:], headers, until)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, *, code: str = "", message: str = "") -> None:
        headers = {"X-Error-Code": code} if code else {}
        self._send(status, b"{}", headers | {"X-Error-Message": message, "Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, until: int | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:until])
        if until is not None:
            self.close_connection = True
