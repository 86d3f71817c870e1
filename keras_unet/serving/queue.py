"""Bounds of requests, and the queue in which they wait for the worker threads."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

Answer = TypeVar("Answer")

MIB = 2**20
_DISCARDED = 8  # times the largest body that is still read, so that the client sees the answer


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of requests.

    Attributes:
        max_body: Largest body, in MiB.
        max_pixels: Largest number of pixels of all images of a request, after resampling.
        queue: Largest number of requests that are received or wait while others are predicted.
        timeout: Time in seconds from the start of a request to its answer.
        workers: Number of requests that are predicted at a time.
    """

    max_body: int = 64
    max_pixels: int = 2**24
    queue: int = 32
    timeout: float = 300.0
    workers: int = 1

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: If a bound is too small.
        """
        for name, least in {"max_body": 1, "max_pixels": 1, "queue": 0, "workers": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} must be at least {least}. Received: {getattr(self, name)}"
                )
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout must be more than 0 seconds. Received: {self.timeout:g}")


class Queue:
    """Queue of requests, which are computed in worker threads in the order of their arrival."""

    def __init__(self, limits: Limits) -> None:
        """Starts no thread yet."""
        self._limits = limits
        self._admitted = 0
        self._threads = ThreadPoolExecutor(limits.workers, "prediction")

    async def answer(self, request: Request, compute: Callable[[bytes], Answer]) -> Answer:
        """Reads the body of a request, and computes its answer in a worker thread.

        A request that has waited too long, or whose client has gone, is not computed any more; a
        computation that has begun runs to its end.

        Args:
            request: The request.
            compute: Function from the body to the answer.

        Raises:
            HTTPException: If the body is too large (413), the queue is full (503), or the time is
                over (504).
            ClientDisconnect: If the client has gone.
        """
        try:
            async with asyncio.timeout(self._limits.timeout):
                with self._place() as has_place:
                    body = await self._body(request, is_kept=has_place)
                    if not has_place:
                        raise HTTPException(
                            503,
                            "The queue to which this request was submitted is full; try again "
                            "later",
                            {"Retry-After": "1"},
                        )
                    return await self._computed(request, lambda: compute(body))
        except TimeoutError as error:
            raise HTTPException(
                504, f"Deadline exceeded: no answer within {self._limits.timeout:g} seconds"
            ) from error

    def close(self) -> None:
        """Waits for running computations."""
        self._threads.shutdown(cancel_futures=True)

    @contextmanager
    def _place(self) -> Iterator[bool]:
        """Counts a request, and yields whether there is place for it."""
        has_place = self._admitted < self._limits.queue + self._limits.workers
        self._admitted += has_place
        try:
            yield has_place
        finally:
            self._admitted -= has_place

    async def _body(self, request: Request, *, is_kept: bool) -> bytes:
        """Reads the body; one that is refused as well, since clients read no answer before."""
        most = self._limits.max_body * MIB
        declared = int(request.headers.get("Content-Length", 0))
        if declared > _DISCARDED * most:
            self._refuse_body()
        if _waits(request) and not (is_kept and declared <= most):
            return b"" if declared <= most else self._refuse_body()
        size, parts = 0, []
        async for part in request.stream():
            size += len(part)
            if size > _DISCARDED * most:
                break
            if is_kept and size <= most:
                parts.append(part)
            else:
                parts.clear()
        return b"".join(parts) if size <= most else self._refuse_body()

    def _refuse_body(self) -> NoReturn:
        raise HTTPException(
            413,
            f"The body of the request is larger than {self._limits.max_body} MiB; send smaller "
            "or fewer images",
        )

    async def _computed(self, request: Request, compute: Callable[[], Answer]) -> Answer:
        loop = asyncio.get_running_loop()
        answer = loop.run_in_executor(self._threads, compute)
        gone: asyncio.Future[None] = asyncio.ensure_future(_disconnection(request))
        either: set[asyncio.Future[Any]] = {answer, gone}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ClientDisconnect
            return answer.result()
        finally:
            gone.cancel()
            answer.cancel()


def _waits(request: Request) -> bool:
    """Returns whether the client sends the body only once it is told to."""
    return request.headers.get("Expect", "").lower() == "100-continue"


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
