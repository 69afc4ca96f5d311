"""A Hugging Face hub on this machine that serves one model folder and can die in the middle of a file."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NAME = "somebody/tiny-llava"
COMMIT = "0" * 40


class Hub(ThreadingHTTPServer):
    """Answers for one model.

    Attributes:
        folder: its files.
        left: bytes of files it still sends before it dies; None for a sound one.
    """

    daemon_threads = True

    def __init__(self, folder: Path, left: int | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.folder, self.left = folder, left

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gives up is no news."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def die(self) -> None:
        """Answer nobody any more."""
        self.left = 0
        threading.Thread(target=self.shutdown).start()
        self.socket.close()


class _Request(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def do_GET(self) -> None:
        self._answer(send=True)

    def _answer(self, send: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith(f"/api/models/{NAME}"):
            return self._send(json.dumps(self._listing(path)).encode(), send)
        file = self.server.folder / path.rpartition("/")[2]
        if f"/{NAME}/resolve/" not in path or not file.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        return self._send(file.read_bytes(), send)

    def _listing(self, path: str) -> Any:
        """What the hub's API says of the model, of its files, and of folders it does not have."""
        if "/tree/" not in path:
            return {"sha": COMMIT, "siblings": [], "id": NAME}
        if not path.rstrip("/").endswith("main"):
            return []
        files = (file for file in self.server.folder.iterdir() if file.is_file())
        return [{"type": "file", "path": file.name, "size": file.stat().st_size} for file in files]

    def _send(self, data: bytes, send: bool) -> None:
        start = int(self.headers.get("Range", "bytes=0-").partition("=")[2].partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if not send:
            return
        if self.server.left is None or self.server.left >= len(data) - start:
            self.wfile.write(data[start:])
            if self.server.left is not None:
                self.server.left -= len(data) - start
            return
        self.wfile.write(data[start : start + self.server.left])
        self.wfile.flush()
        self.server.die()
        self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def hub(folder: Path, left: int | None = None) -> Iterator[Hub]:
    server = Hub(folder, left)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        if server.left != 0:
            server.shutdown()
        server.server_close()


def plan(url: str, home: Path) -> tuple[int, str]:
    """`topoprune plan` of the hub's model: exit code and standard error."""
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home), "TOPOPRUNE_CACHE": "off"}
    environment = {k: v for k, v in environment.items() if k not in ("HF_HUB_OFFLINE", "HF_HUB_CACHE")}
    command = [sys.executable, "-m", "lmms_topoprune.cli.main", "plan", "--pretrained", NAME, "--layers", "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    return done.returncode, done.stderr
