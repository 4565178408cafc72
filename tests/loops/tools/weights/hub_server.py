"""A server on loopback that answers like the Hugging Face Hub, and its faults."""

import contextlib
import hashlib
import http.server
import json
import threading

COMMIT = "c" * 40


class Hub:
    """Repositories by name, and how the server behaves.

    Attributes:
      files: {repository: {file name: bytes}}.
      gated: repositories that ask for a token.
      cut_after: bytes after which the next download of a large file breaks off; None for never.
      wrong_hash: whether large files are announced with the hash of another file.
      html: whether every answer is a page, as behind the login of a hotel.
      requests: (method, path, range) of each request.
    """

    def __init__(self):
        self.files, self.gated, self.requests = {}, set(), []
        self.cut_after, self.wrong_hash, self.html = None, False, False
        self.url = self.storage_url = ""

    def add(self, repository, card, weights):
        """Adds a repository; `card` is a dict, bytes or None."""
        card = json.dumps(card).encode() if isinstance(card, dict) else card
        self.files[repository] = {"model.safetensors": weights}
        if card is not None:
            self.files[repository]["config.json"] = card


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        hub = self.hub
        if self.path.startswith("/api/"):  # the library asks for more than files
            return self._send(404, b"", {})
        hub.requests.append((self.command, self.path, self.headers.get("Range")))
        if hub.html:
            return self._send(200, b"<html>Please log in</html>", {"Content-Type": "text/html"})
        parts = self.path.strip("/").split("/")
        if parts[0] == "storage":
            return self._send_stored(hub.files[f"{parts[1]}/{parts[2]}"][parts[3]])
        repository, revision, name = "/".join(parts[:2]), parts[3], parts[4]
        if repository in hub.gated:
            return self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        if repository not in hub.files:
            return self._send(401, b"", {"X-Error-Message": "Invalid username or password."})
        if revision not in ("main", COMMIT):
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        commit = {"X-Repo-Commit": COMMIT}
        if name not in hub.files[repository]:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", **commit})
        content = hub.files[repository][name]
        if name == "config.json":
            return self._send(
                200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', **commit}
            )
        digest = hashlib.sha256(b"other" if hub.wrong_hash else content).hexdigest()
        target = f"{hub.storage_url}/storage/{repository}/{name}"
        facts = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{digest}"', **commit}
        return self._send(302, b"", {"Location": target, **facts})

    def _send_stored(self, content):
        start = int((self.headers.get("Range") or "bytes=0-")[6:].rstrip("-"))
        if self.hub.cut_after is not None:
            self._begin(206 if start else 200, len(content) - start, {})
            self.wfile.write(content[start : start + self.hub.cut_after])
            self.hub.cut_after = None
            self.close_connection = True
            return
        span = (
            {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        )
        self._send(206 if start else 200, content[start:], span)

    def _send(self, status, content, headers):
        self._begin(status, len(content), headers)
        if self.command == "GET":
            self.wfile.write(content)

    def _begin(self, status, length, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


@contextlib.contextmanager
def serve():
    """Yields a Hub that answers at its `url`. Its large files are at another host, `localhost`."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.storage_url = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
