"""Load of a served model, and tiling in the graph or in the client: `python -m benchmarks.serving`.

A network with random weights is exported and served by the server of the tests
(tests/serving/front_end.py). It runs the graph as TensorFlow Serving does, but is another program:
results are those of graph and client. 1, 4 and 16 clients send PNG files of several sizes by gRPC,
one after the other; measured are requests per second, latency, resident memory of the server before
and after, and errors. Then a large PNG file is tiled in the graph and, alternately, by the client
through the signature `tile`, for classes and for probabilities; the result is the median ratio.
Results are printed and written to `benchmarks/results/serving.json`. Less than a minute for each
number of clients is only for testing.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from benchmarks.record import RESULTS, ROOT, origin
from benchmarks.timing import compare
from keras_unet.architecture import Architecture
from keras_unet.backend import keras
from keras_unet.client import Client, Tensor
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.normalization import Normalization
from keras_unet.export.graph import GraphTiling
from keras_unet.export.saved_model import write_graph
from keras_unet.files import make_folder, write_json
from keras_unet.model import unet_of
from keras_unet.prediction.predict import predict_image
from keras_unet.runs import Run

CLIENTS = (1, 4, 16)
SIDES = range(96, 353, 32)  # sides of the files that clients send
LARGE = 1024  # side of the image to tile
DEPTH, USEFUL = 3, 256  # poolings; output pixels of a tile, a side
FRONT_END = ROOT / "tests" / "serving" / "front_end.py"


@dataclass(frozen=True)
class Server:
    """Address and process of the server."""

    address: str
    process: int

    @property
    def mebibytes(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.process}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return round(int(found[1]) / 1024, 1) if found else float("nan")


def main() -> None:
    """Measures load and tiling, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="seconds for each number of clients"
    )
    parser.add_argument("--filters", type=int, default=8, help="features of the first level")
    given = parser.parse_args()
    network = Architecture(depth=DEPTH, base_filters=given.filters)
    tiling = GraphTiling.of(network, network.fitting_size(2 * network.context + USEFUL))
    with tempfile.TemporaryDirectory() as folder:
        export(Path(folder) / "1", network, tiling)
        with served(Path(folder)) as server:
            result = {
                "benchmark": " ".join(["python -m benchmarks.serving", *sys.argv[1:]]),
                **origin(),
                "network": {"depth": DEPTH, "base_filters": given.filters},
                "tile_size": tiling.tile_size,
                "load": load(server, given.seconds),
                "tiling": compare_tiling(server, network, tiling),
            }
    write_json(make_folder(RESULTS) / "serving.json", result)
    print(json.dumps(result, indent=2))


def export(folder: Path, network: Architecture, tiling: GraphTiling) -> None:
    """Exports a network with random weights."""
    keras.utils.set_random_seed(0)
    encoding = LabelEncoding("instances", (0, 1))
    run = Run(
        folder=folder,
        architecture=network,
        encoding=encoding,
        normalization=Normalization("image"),
        precision="float32",
        record={},
    )
    write_graph(folder, run, unet_of(network), tiling, {})


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    """Runs the server on loopback."""
    command = [sys.executable, str(FRONT_END), "drawn", str(folder)]
    with subprocess.Popen(  # noqa: S603 - a program of this checkout
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        if process.stdout is None or process.stdin is None:
            raise OSError(f"{FRONT_END}: expected a process with pipes")
        ports = json.loads(process.stdout.readline())
        yield Server(f"grpc://127.0.0.1:{ports['grpc']}/drawn", process.pid)
        process.stdin.close()


def load(server: Server, seconds: float) -> list[dict[str, Any]]:
    """Measures 1, 4 and 16 clients for `seconds` each, after every file has been sent once."""
    files = [png(side) for side in SIDES]
    with Client(server.address) as client:
        client.classify(files)
    return [asked_by(server, clients, files, seconds) for clients in CLIENTS]


def asked_by(server: Server, clients: int, files: list[bytes], seconds: float) -> dict[str, Any]:
    """Measures one number of clients."""
    before, started = server.mebibytes, time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        work = [
            pool.submit(ask, server.address, islice(cycle(files), first, None), started + seconds)
            for first in range(clients)
        ]
        results = [one.result() for one in work]
    took = time.perf_counter() - started
    latencies = [latency for found, _ in results for latency in found]
    return {
        "clients": clients,
        "seconds": round(took, 1),
        "requests": len(latencies),
        "requests_a_second": round(len(latencies) / took, 2),
        "milliseconds_50_percent": round(1000 * float(np.percentile(latencies, 50)), 1),
        "milliseconds_99_percent": round(1000 * float(np.percentile(latencies, 99)), 1),
        "mebibytes_before": before,
        "mebibytes_after": server.mebibytes,
        "errors": sum(errors for _, errors in results),
    }


def ask(address: str, files: Iterator[bytes], until: float) -> tuple[list[float], int]:
    """Sends files one after the other; returns the latencies and the number of errors."""
    latencies, errors = [], 0
    with Client(address, attempts=1) as client:
        while time.perf_counter() < until:
            started = time.perf_counter()
            try:
                client.classify([next(files)])
            except (OSError, ValueError):
                errors += 1
            else:
                latencies.append(time.perf_counter() - started)
    return latencies, errors


def compare_tiling(server: Server, network: Architecture, tiling: GraphTiling) -> dict[str, Any]:
    """Compares tiling in the graph with tiling by the client."""
    file = png(LARGE)
    with Client(server.address) as client:

        def score(tile: NDArray[Any]) -> NDArray[Any]:
            answer: NDArray[Any] = np.asarray(
                client.predict("tile", {"tile": Tensor.of(tile)}, ["logits"])["logits"]
            )
            return answer

        def by_client() -> NDArray[Any]:
            image = Normalization("image").apply(imagecodecs.png_decode(file)[..., None])
            return predict_image(score, image, tile_size=tiling.tile_size, architecture=network)

        def in_graph() -> NDArray[Any]:
            probabilities: NDArray[Any] = np.asarray(client.probabilities([file])[0])
            return probabilities

        def classes_in_graph() -> NDArray[Any]:
            return imagecodecs.png_decode(client.classify([file])[0])

        difference = np.abs(in_graph() - by_client()).max()
        return {
            "image": [LARGE, LARGE],
            "largest_difference": float(difference),
            "classes": compare(classes_in_graph, lambda: by_client().argmax(-1)),
            "probabilities": compare(in_graph, by_client),
        }


def png(side: int) -> bytes:
    """Draws a PNG file of random grey values, `(side, side)`."""
    pixels = np.random.default_rng(side).integers(0, 256, (side, side), np.uint8)
    return bytes(imagecodecs.png_encode(pixels))


if __name__ == "__main__":
    main()
