"""Load of `keras-unet serve`: `python -m benchmarks.serve`.

The network, files and clients are those of `benchmarks.serving`, the transport is REST. 1, 4 and 16
clients send PNG files for a minute each, to a server that predicts one request at a time and to one
that predicts two; measured are requests per second, latency, resident memory of the server before
and after, and errors. Meanwhile another client asks for the state of the model, which shows how
long the server keeps it waiting. Results are printed and written to
`benchmarks/results/serve.json`. Less than a minute for each number of clients is only for testing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from benchmarks.record import RESULTS, origin
from benchmarks.serving import DEPTH, USEFUL, Server, export, load
from keras_unet.architecture import Architecture
from keras_unet.client import Client
from keras_unet.export.graph import GraphTiling
from keras_unet.files import make_folder, write_json

WORKERS = (1, 2)
PAUSE = 0.1  # seconds between two requests for the state


def main() -> None:
    """Measures the load for each number of workers, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="seconds for each number of clients"
    )
    parser.add_argument("--filters", type=int, default=8, help="features of the first level")
    given = parser.parse_args()
    network = Architecture(depth=DEPTH, base_filters=given.filters)
    tiling = GraphTiling.of(network, network.fitting_size(2 * network.context + USEFUL))
    with tempfile.TemporaryDirectory() as folder:
        export(Path(folder) / "drawn" / "1", network, tiling)
        result = {
            "benchmark": " ".join(["python -m benchmarks.serve", *sys.argv[1:]]),
            **origin(),
            "network": {"depth": DEPTH, "base_filters": given.filters},
            "tile_size": tiling.tile_size,
            "servers": [measure(Path(folder) / "drawn", count, given.seconds) for count in WORKERS],
        }
    write_json(make_folder(RESULTS) / "serve.json", result)
    print(json.dumps(result, indent=2))


def measure(folder: Path, workers: int, seconds: float) -> dict[str, Any]:
    """Measures a server with so many workers."""
    stop = Event()
    with served(folder, workers) as server, ThreadPoolExecutor(1) as pool:
        waits = pool.submit(ask_for_state, server.address, stop)
        try:
            found = load(server, seconds)
        finally:
            stop.set()
        state = 1000 * np.percentile(waits.result(), [50, 99, 100])
    return {
        "workers": workers,
        "load": found,
        "state_milliseconds": dict(
            zip(("50_percent", "99_percent", "most"), state.round(1).tolist(), strict=True)
        ),
    }


def ask_for_state(address: str, stop: Event) -> list[float]:
    """Asks for the state of the model until `stop`; returns the times in seconds."""
    times = []
    with Client(address, attempts=1) as client:
        while not stop.wait(PAUSE):
            started = time.perf_counter()
            client.versions()
            times.append(time.perf_counter() - started)
    return times


@contextmanager
def served(folder: Path, workers: int) -> Iterator[Server]:
    """Runs the command on loopback."""
    command = [sys.executable, "-m", "keras_unet", "serve", str(folder), "--port", "0", "--quiet"]
    with subprocess.Popen(  # noqa: S603 - a program of this checkout
        [*command, "--workers", str(workers)], stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdout is None:
            raise OSError("keras-unet serve: expected a process with a pipe")
        try:
            yield Server(process.stdout.readline().strip(), process.pid)
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
