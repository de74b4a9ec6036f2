"""The Hub on 127.0.0.1: those of its HTTP endpoints that huggingface_hub's client uses to read and to write models."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".jpg")  # kept by LFS, under the SHA-256 of the content


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def read_folder(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@dataclass
class Repository:
    """Files by commit, and commits by branch or tag."""

    private: bool = False
    token: str = ""  # that must be given, if any
    refusal: tuple[int, str] = (401, "RepoNotFound")  # status and error code for all other tokens
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], ref: str = "main") -> str:
        commit = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[commit] = files
        self.refs[ref] = commit
        return commit

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.refs.get(revision, revision)]


class Hub(ThreadingHTTPServer):
    """Serves `repositories` while it is entered; `requests` remembers method, path and range of each request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.storage_url = f"http://localhost:{self.server_port}"  # another host to the client, which keeps its token
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.large: dict[str, bytes] = {}
        self.cut_after: dict[str, int] = {}  # bytes of a large file, by digest, after which the connection ends once
        self.sent_instead: dict[str, bytes] = {}  # of a large file, by digest

    def add(self, name: str, files: dict[str, bytes], ref: str = "main", **options) -> Repository:
        repository = self.repositories.setdefault(name, Repository(**options))
        repository.commit(files, ref)
        self.large |= {sha256(content): content for path, content in files.items() if path.endswith(LARGE)}
        return repository

    def downloads(self) -> list[str]:
        """Requests for the content of files."""
        return [path for method, path, _ in self.requests if method == "GET" and not path.startswith("/api/")]

    def __enter__(self) -> Hub:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *arguments) -> None:
        pass

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path, self.headers.get("Range", "")))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        routes = (
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", self._validate),
            (r"/api/models/(?P<name>[^/]+/[^/]+)/preupload/(?P<revision>.+)", self._preupload),
            (r"/api/models/(?P<name>[^/]+/[^/]+)/commit/(?P<revision>.+)", self._commit),
            (r"/api/models/(?P<name>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)/?", self._tree),
            (r"/api/models/(?P<name>[^/]+/[^/]+)(/revision/(?P<revision>.+))?", self._info),
            (r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)", self._resolve),
            (r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/large/(?P<digest>[0-9a-f]{64})", self._large),
        )
        for pattern, answer in routes:
            if found := re.fullmatch(pattern, path):
                named = found.groupdict()
                if "name" in named:
                    named["repository"] = self._readable(named.pop("name"))
                    if named["repository"] is None:
                        return
                answer(body, **named)
                return
        self._send(404)

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815  as http.server calls them

    def _readable(self, name: str) -> Repository | None:
        repository = self.server.repositories.get(name)
        if repository is None:
            self._send(404, **{"X-Error-Code": "RepoNotFound"})
        elif repository.token and self.headers.get("Authorization") != f"Bearer {repository.token}":
            status, code = repository.refusal
            self._send(status, **{"X-Error-Code": code})
            return None
        return repository

    def _files(self, repository: Repository, revision: str | None) -> dict[str, bytes] | None:
        try:
            return repository.files(revision or "main")
        except KeyError:
            self._send(404, **{"X-Error-Code": "RevisionNotFound"})
            return None

    def _info(self, body: bytes, repository: Repository, revision: str | None) -> None:
        files = self._files(repository, revision)
        if files is not None:
            commit = repository.refs.get(revision or "main", revision)
            siblings = [{"rfilename": path} for path in files]
            self._json({"id": "", "sha": commit, "private": repository.private, "siblings": siblings})

    def _tree(self, body: bytes, repository: Repository, revision: str) -> None:
        files = self._files(repository, revision)
        if files is not None:
            self._json([_entry(path, content) for path, content in files.items()])

    def _resolve(self, body: bytes, repository: Repository, revision: str, file: str) -> None:
        files = self._files(repository, revision)
        if files is None:
            return
        commit = {"X-Repo-Commit": repository.refs.get(revision, revision)}
        if file not in files:
            self._send(404, **commit, **{"X-Error-Code": "EntryNotFound"})
        elif file.endswith(LARGE):
            digest = sha256(files[file])
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(files[file]))}
            self._send(302, Location=f"{self.server.storage_url}/large/{digest}?{file}", **commit, **linked)
        else:
            self._send(200, files[file], ETag=f'"{git_sha1(files[file])}"', **commit)

    def _large(self, body: bytes, digest: str) -> None:
        if self.command == "PUT":
            assert sha256(body) == digest
            self.server.large[digest] = body
            self._send(200)
            return
        content = self.server.sent_instead.get(digest, self.server.large[digest])
        status, headers = 200, {}
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(found[1])
            status, headers = 206, {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            content = content[start:]
        self._send(status, content, end=self.server.cut_after.pop(digest, None), **headers)

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        known = name in self.server.repositories
        if not known:
            private = asked.get("visibility") == "private" or asked.get("private", False)
            self.server.add(name, {".gitattributes": b""}, private=private)
        self._json({"url": f"{self.server.url}/{name}", "name": name}, status=409 if known else 200)

    def _validate(self, body: bytes) -> None:
        text = json.loads(body)["content"]
        self._json({"errors": [] if text.startswith("---\n") else [{"message": "no metadata"}], "warnings": []})

    def _preupload(self, body: bytes, repository: Repository, revision: str) -> None:
        asked = json.loads(body)["files"]
        modes = [(each["path"], "lfs" if each["path"].endswith(LARGE) else "regular") for each in asked]
        self._json({"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes]})

    def _batch(self, body: bytes, repository: Repository) -> None:
        objects = json.loads(body)["objects"]
        for each in objects:
            if each["oid"] not in self.server.large:
                each["actions"] = {"upload": {"href": f"{self.server.url}/large/{each['oid']}"}}
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, body: bytes, repository: Repository, revision: str) -> None:
        files = dict(repository.files(revision))
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        commit = repository.commit(files, revision)
        name = self.path.split("/commit/")[0].removeprefix("/api/models/")
        self._json({"commitUrl": f"{self.server.url}/{name}/commit/{commit}", "commitOid": commit})

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes = b"", end: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:end])
        if end is not None:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True


def _entry(path: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": git_sha1(content)}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
    return entry
