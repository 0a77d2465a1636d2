"""A stand-in for the hub's HTTP API, on the loopback interface.

It knows what an upload and a download need: repositories, the preupload
question, Git LFS's batch API, commits, and files of a commit.
"""

import base64
import hashlib
import http.server
import json
import re
import threading


class Hub:
    """Repositories in memory, served until ``close``.

    Attributes
    ----------
    repos : dict
        Name to ``{"private": bool, "commits": [{path: bytes}]}``.
    blobs : dict
        LFS objects by their SHA-256.
    sent : list of str
        The LFS objects that were uploaded, in order.
    break_after : int or None
        LFS uploads that succeed before every further one is refused.
    tokens : set of str
        The ones that may write.
    requests : list of str
        Method and path of all requests.
    """

    def __init__(self):
        self.repos, self.blobs = {}, {}
        self.sent, self.requests = [], []
        self.break_after = None
        self.lock = threading.Lock()
        self.tokens = {"hf_may_write"}
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(
            target=self.server.serve_forever, args=(0.02,), daemon=True
        )
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def files(self, name):
        """The files of the last commit."""
        return self.repos[name]["commits"][-1]

    def add(self, name, files, private=False):
        """Makes a repository as if somebody had uploaded it."""
        self.repos[name] = {"private": private, "commits": [files]}


def _sha(number):
    return hashlib.sha1(str(number).encode()).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, content=b"", **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers["Content-Type"] = "application/json"
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status, code, message):
        self.answer(
            status, {"error": message}, X_Error_Code=code, X_Error_Message=code
        )

    def token(self):
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def may_write(self):
        if self.token() in self.hub.tokens:
            return True
        self.refuse(401, "Unauthorized", "Invalid token")
        return False

    def repo(self, name):
        """A repository that this request may see, or an answer that denies."""
        repo = self.hub.repos.get(name)
        if repo is None or (
            repo["private"] and self.token() not in self.hub.tokens
        ):
            self.refuse(404, "RepoNotFound", "Repository not found")
            return None
        return repo

    def handle_any(self):
        self.path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {self.path}")
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size) if size else b""
        for method, pattern, action in (
            ("POST", r"/api/repos/create", self.create),
            ("POST", r"/api/validate-yaml", self.validate),
            ("POST", r"/api/models/(.+)/preupload/main", self.preupload),
            ("POST", r"/api/models/(.+)/commit/main", self.commit),
            ("POST", r"/(.+)\.git/info/lfs/objects/batch", self.batch),
            ("PUT", r"/lfs/(\w+)", self.upload),
            ("GET", r"/api/models/([^/]+/[^/]+)(?:/revision/.+)?", self.info),
            ("GET", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.file),
            ("HEAD", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.file),
        ):
            match = re.fullmatch(pattern, self.path)
            if match and method == self.command:
                return action(body, *match.groups())
        return self.refuse(404, "Unknown", f"no such thing: {self.path}")

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def create(self, body):
        if not self.may_write():
            return
        about = json.loads(body)
        name = about["name"]
        if about.get("organization"):
            name = f"{about['organization']}/{name}"
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repos:
            self.answer(409, {"error": "exists", "url": url})
            return
        private = about.get("private")
        if private is None:
            private = about.get("visibility") == "private"
        self.hub.repos[name] = {"private": private, "commits": [{}]}
        self.answer(200, {"url": url, "id": name, "name": name})

    def validate(self, body):
        self.answer(200, {"errors": [], "warnings": []})

    def info(self, body, name):
        repo = self.repo(name)
        if repo is not None:
            self.answer(
                200,
                {
                    "id": name,
                    "private": repo["private"],
                    "sha": _sha(len(repo["commits"])),
                    "siblings": [
                        {"rfilename": path} for path in repo["commits"][-1]
                    ],
                },
            )

    def preupload(self, body, name):
        if not self.may_write() or self.repo(name) is None:
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": (
                    "lfs"
                    if file["path"].endswith((".ckpt", ".safetensors"))
                    else "regular"
                ),
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self.answer(200, {"files": files})

    def batch(self, body, name):
        if not self.may_write() or self.repo(name) is None:
            return
        objects = []
        for wanted in json.loads(body)["objects"]:
            found = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.blobs:
                href = f"{self.hub.url}/lfs/{wanted['oid']}"
                found["actions"] = {"upload": {"href": href, "header": {}}}
            objects.append(found)
        self.answer(200, {"transfer": "basic", "objects": objects})

    def upload(self, body, oid):
        hub = self.hub
        with hub.lock:  # uploads come side by side
            dead = (
                hub.break_after is not None and len(hub.sent) >= hub.break_after
            )
            if not dead:
                assert hashlib.sha256(body).hexdigest() == oid
                hub.blobs[oid] = body
                hub.sent.append(oid)
        if dead:
            self.close_connection = True
            self.connection.close()
        else:
            self.answer(200)

    def commit(self, body, name):
        if not self.may_write():
            return
        repo = self.repo(name)
        if repo is None:
            return
        files = dict(repo["commits"][-1])
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                content = value["content"]
                assert value["encoding"] == "base64"
                files[value["path"]] = base64.b64decode(content)
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        repo["commits"].append(files)
        sha = _sha(len(repo["commits"]))
        self.answer(
            200,
            {
                "success": True,
                "commitOid": sha,
                "commitUrl": f"{self.hub.url}/{name}/commit/{sha}",
            },
        )

    def file(self, body, name, revision, path):
        repo = self.repo(name)
        if repo is None:
            return
        commits = {_sha(i + 1): c for i, c in enumerate(repo["commits"])}
        last = _sha(len(repo["commits"]))
        revision = last if revision == "main" else revision
        if revision not in commits:
            self.refuse(404, "RevisionNotFound", "no such revision")
        elif path not in commits[revision]:
            self.answer(
                404,
                {"error": "Entry not found"},
                X_Error_Code="EntryNotFound",
                X_Repo_Commit=revision,
            )
        else:
            content = commits[revision][path]
            self.answer(
                200,
                content,
                X_Repo_Commit=revision,
                ETag=f'"{hashlib.sha256(content).hexdigest()}"',
            )
