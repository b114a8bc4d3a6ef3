"""A hub on this machine: as much of the Hugging Face hub's interface as downloading a repository takes."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlparse

COMMIT = "a" * 40
REVISIONS = ("main", COMMIT)


class _Handler(http.server.BaseHTTPRequestHandler):
    root: Path
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in ({"Content-Length": len(body)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer(self):
        parts = [unquote(part) for part in urlparse(self.path).path.strip("/").split("/")]
        if parts[0] == "api" and len(parts) >= 4:
            self.describe("/".join(parts[2:4]), *parts[4:])
        elif "resolve" in parts:
            place = parts.index("resolve")
            self.resolve("/".join(parts[place - 2 : place]), parts[place + 1], "/".join(parts[place + 2 :]))
        else:
            self.reply(404)

    def describe(self, repository, kind="revision", revision="main", *below):
        folder = self.root / repository
        if not folder.is_dir():
            return self.reply(404, X_Error_Code="RepoNotFound")
        if revision not in REVISIONS:
            return self.reply(404, X_Error_Code="RevisionNotFound")
        if kind == "revision":
            names = [{"rfilename": path.relative_to(folder).as_posix()} for path in sorted(folder.rglob("*.*"))]
            facts = {"id": repository, "sha": COMMIT, "private": False, "gated": False, "siblings": names}
        elif kind == "tree":
            here = folder.joinpath(*below)
            if not here.is_dir():
                return self.reply(404, X_Error_Code="EntryNotFound")
            facts = [
                {
                    "type": "directory" if path.is_dir() else "file",
                    "path": path.relative_to(folder).as_posix(),
                    "size": 0 if path.is_dir() else path.stat().st_size,
                    "oid": "0" * 40,
                }
                for path in sorted(here.iterdir())
            ]
        else:
            return self.reply(404)
        return self.reply(200, json.dumps(facts).encode(), Content_Type="application/json")

    def resolve(self, repository, revision, name):
        path = self.root / repository / name
        if not (self.root / repository).is_dir():
            return self.reply(404, X_Error_Code="RepoNotFound")
        if revision != COMMIT:  # a branch may move while it is read
            return self.reply(404, X_Error_Code="RevisionNotFound")
        if not path.is_file():
            return self.reply(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        body = path.read_bytes()
        headers = {
            "ETag": f'"{hashlib.sha1(body).hexdigest()}"',
            "X_Repo_Commit": COMMIT,
            "Accept_Ranges": "bytes",
        }
        if self.command == "GET" and "Range" in self.headers:
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            part = body[int(first) : int(last or len(body)) + 1]
            return self.reply(206, part, **headers, Content_Range=f"bytes {first}-{last}/{len(body)}")
        return self.reply(200, body, **headers)

    do_GET = do_HEAD = answer


@contextmanager
def local_hub(root: Path) -> Iterator[str]:
    """Serve the repositories that stand as folders below `root`; gives the address."""
    handler = type("Handler", (_Handler,), {"root": root})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
