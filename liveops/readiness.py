"""Tells whoever started this process that it serves: systemd's protocol, a datagram."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from typing import Final

VARIABLE: Final = "NOTIFY_SOCKET"
READY: Final = b"READY=1"
log = logging.getLogger(__name__)


def tell_ready(environ: Mapping[str, str]) -> None:
    """Say that the service is ready, where a supervisor asked to be told; see sd_notify(3).

    >>> tell_ready({})  # started by hand: nobody asked
    """
    address = environ.get(VARIABLE)
    if not address:
        return
    if address.startswith("@"):  # a name without a file, which begins with a NUL
        address = f"\0{address[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
            supervisor.sendto(READY, address)
    except OSError as error:
        log.warning("%s could not be told that this is ready: %s", VARIABLE, error)
