"""The live view: the page of a run, served on this machine alone while the run goes on."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from convnet.common.own_code import allowed
from convnet.data.dataset import DataError
from convnet.report.page import page
from convnet.report.story import gather, is_training
from convnet.training.datasets import Data
from convnet.training.run_folder import METRICS, RunError, run_config

_STATE = "/state"  # the address that the page asks
_HOST = "127.0.0.1"
_KIND = "text/html; charset=utf-8"


class LiveView:
    """A server of one page.

    The page is made when somebody asks for it and the run has changed. While the run is training,
    held-out images are not looked at, which would slow it down.

    Args:
        run: the folder of the run.
        data, device, warn, code: as for `convnet.report.write.write_report`.
        port: 0 takes a free one.

    Attributes:
        address: to open in a browser.

    Raises: RunError: no run in that folder. DataError: the port is in use.
    """

    def __init__(
        self,
        run: Path,
        data: Data = None,
        device: str | None = None,
        warn: Callable[[str], None] = lambda text: None,
        port: int = 0,
        code: bool = False,
    ) -> None:
        if not run.is_dir():
            raise RunError(f"{run}: expected the folder of a run")
        with allowed(code):
            run_config(run)
        self.code = code  # of every thread that answers
        self.run, self.data, self.device, self.warn = run, data, device, warn
        self._made: tuple[str, bytes] = ("", b"")
        self._lock = threading.Lock()
        try:
            self.server = ThreadingHTTPServer((_HOST, port), self._handler())
        except OSError as error:
            raise DataError(f"port: expected a free one, got {port} ({error.strerror})") from None
        self.address = f"http://{_HOST}:{self.server.server_port}/"

    def serve(self) -> None:
        """Answers until it is interrupted."""
        with self.server:
            self.server.serve_forever(poll_interval=0.2)

    def state(self) -> str:
        """What changes whenever the page would."""
        facts = [str(is_training(self.run))]
        best = self.run / "checkpoints" / "best.safetensors"
        for path in (self.run / METRICS, best):
            try:
                found = path.stat()
                facts.append(f"{found.st_mtime_ns} {found.st_size}")
            except OSError:
                facts.append("none")
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]

    def content(self) -> bytes:
        """The page as it is now."""
        with self._lock:
            state = self.state()
            if self._made[0] != state:
                running = is_training(self.run)
                with allowed(self.code):
                    story = gather(self.run, self.data, self.device, self.warn, measure=not running)
                text = page(story, live=f"{_STATE}?{state}")
                self._made = state, text.encode(errors="backslashreplace")
            return self._made[1]

    def _handler(view: LiveView) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not self._from_here():
                    self.send_error(403)
                    return
                path = self.path.partition("?")[0]
                if path == _STATE:
                    self._send(view.state().encode(), "text/plain")
                elif path == "/":
                    try:
                        self._send(view.content(), _KIND)
                    except (ValueError, OSError) as error:
                        view.warn(f"report: {error}")
                        self.send_error(500)
                else:
                    self.send_error(404)

            def _from_here(self) -> bool:
                """Whether the browser asked for this machine: a name that somebody else has
                pointed at it is refused."""
                host = self.headers.get("Host", "").partition(":")[0]
                return host in (_HOST, "localhost")

            def _send(self, content: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Says nothing of each request."""

        return Handler
