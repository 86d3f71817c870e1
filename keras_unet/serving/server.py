"""Server process of an application: its address, and its end at Ctrl-C or SIGTERM."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import TYPE_CHECKING

import uvicorn

from keras_unet.serving.app import application
from keras_unet.serving.queue import Limits, Queue

if TYPE_CHECKING:
    from keras_unet.serving.models import Model

LOOPBACK, PORT = "127.0.0.1", 8501

_HOSTS = ("127.0.0.1", "localhost", "::1")
_STOPS = (signal.SIGINT, signal.SIGTERM)


def bind(host: str = LOOPBACK, port: int = PORT) -> socket.socket:
    """Reserves a port; connections are refused until the server runs.

    Args:
        host: Name or address of this machine.
        port: Port number; 0 for any free one.

    Raises:
        OSError: If the address is not of this machine, or the port is in use.
        ValueError: If the port number is out of range.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"--port must be from 0 to 65535. Received: {port}")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if os.name == "posix":  # elsewhere, several programs could share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(
            f"--host {host} --port {port}: expected an address of this machine with a free port. "
            f"Received one that cannot be used ({error.strerror or error}); choose another --port, "
            "or 0 for any"
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Returns the address of a reserved port, http://HOST:PORT."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(listener: socket.socket) -> bool:
    """Returns whether a reserved port is open to this machine only."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


class Server(uvicorn.Server):
    """Server of a model. `run()` returns once it has been stopped and all requests are answered.

    It stops at Ctrl-C, SIGTERM, or `should_exit = True`; a second Ctrl-C ends open connections.
    """

    def __init__(
        self,
        model: Model,
        listener: socket.socket,
        limits: Limits | None = None,
        *,
        on_start: Callable[[], object] | None = None,
    ) -> None:
        """Prepares the server.

        Args:
            model: The model.
            listener: The reserved port, see `bind`.
            limits: Bounds of requests; None for the defaults.
            on_start: Function that is called once requests are answered.
        """
        limits = limits or Limits()
        self._queue, self._listener, self._on_start = Queue(limits), listener, on_start
        hosts = _HOSTS if is_loopback(listener) else ()
        app = application(model, limits, self._queue, hosts)
        config = uvicorn.Config(
            app,
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to answer requests."""
        await super().startup(sockets)
        if self._on_start:
            self._on_start()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Answers requests until the server is stopped."""
        with _stop_signals_are_no_errors():
            super().run(sockets or [self._listener])
            self._queue.close()


@contextmanager
def _stop_signals_are_no_errors() -> Iterator[None]:
    """Ignores the signals that end the server, which uvicorn raises again after it has ended."""
    if current_thread() is not main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
