"""A server in a process of its own, so that its CPU time is its own: `ours URL` or `bare`.

Prints its address, and serves until stdin ends.
"""

from __future__ import annotations

import sys
import threading

import uvicorn
from starlette.types import Receive, Scope, Send

from config.settings import Settings
from liveops.api.server import serving
from liveops.wiring import running_app

ANSWER_BYTES = 420
"""As long as the answer to an assignment."""


async def bare(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read a request whole and answer the same bytes to each."""
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % ANSWER_BYTES)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * ANSWER_BYTES})


def serve_bare() -> None:
    """Serve `bare` as the service itself is served, without its limits."""
    config = uvicorn.Config(bare, lifespan="off", ws="none", access_log=False, log_config=None)
    config.port = 0
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.should_exit = True
    thread.join()


def serve_ours(url: str) -> None:
    """Serve the ledger at `url`."""
    settings = Settings.model_validate({"database": {"url": url}})
    with (
        running_app(settings, demo=False, create=False, upgrade=False) as app,
        serving(app, host="127.0.0.1", port=0) as address,
    ):
        print(address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        serve_bare()
    else:
        serve_ours(sys.argv[2])
