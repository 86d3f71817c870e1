"""Distributed training on several devices of one machine, or on several machines.

`tf.distribute` gives every replica, usually a GPU, a copy of the network and a part of each batch,
and sums the gradients over all replicas. The chief, the first worker, decides and writes files; its
values are broadcast to the other workers. Results do not depend on the number of replicas, so
`--resume` and `--repeat` work with another number that divides the batch.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from keras_unet.backend import keras, tf

_log = logging.getLogger(__name__)

Distribution = Literal["auto", "mirrored", "multiworker"]

_CONFIG = "TF_CONFIG"
_SUM = tf.distribute.ReduceOp.SUM
_EXAMPLE = '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
_LOST = (
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.UnavailableError,
)


@dataclass(frozen=True)
class Cluster:
    """Devices and processes that train together.

    Attributes:
        strategy: Strategy of `tf.distribute`; the default one has one replica.
        workers: Number of processes that train together.
        worker: Number of this process, from 0; the first is the chief.
    """

    strategy: Any = field(default_factory=tf.distribute.get_strategy)
    workers: int = 1
    worker: int = 0

    @property
    def replicas(self) -> int:
        """Number of copies of the network, over all workers."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def is_chief(self) -> bool:
        """True if this process decides and writes files."""
        return self.worker == 0

    def to_dict(self) -> dict[str, int]:
        """Returns the numbers of workers and replicas, for the record of a run."""
        return {"workers": self.workers, "replicas": self.replicas}

    def check(self, batch_size: int, precision: str) -> None:
        """Checks that the replicas can train with a batch size and a precision.

        Raises:
            ValueError: If the batch cannot be divided equally, or the precision is float16.
        """
        if self.replicas > 1 and precision == "float16":
            raise ValueError(
                "precision must be float32 or bfloat16 where several replicas train together. "
                "Received: precision='float16'; choose another, or leave --distribute out"
            )
        if batch_size % self.replicas:
            fitting = [str(n) for n in range(1, batch_size + 1) if batch_size % n == 0]
            raise ValueError(
                "replicas must divide the tiles per batch that the run was started with. "
                f"Received: replicas={self.replicas} for {batch_size} tiles; continue with "
                f"{' or '.join(fitting)} replicas"
            )

    def replicated(self, model: Any) -> Any:
        """Clones a model on every replica; returns the model itself for a single replica."""
        if self.replicas == 1 and self.workers == 1:
            return model
        with self.strategy.scope():
            return keras.models.clone_model(model)

    def share(self, variables: Mapping[str, Any]) -> None:
        """Assigns the chief's values to the variables of every worker."""
        if self.workers > 1:
            for variable in variables.values():
                variable.assign(self.broadcast(variable.numpy()))

    def broadcast(self, numbers: Any) -> Any:
        """Returns the chief's numbers on every worker. All workers must call it; it blocks.

        Raises:
            ConnectionError: If a worker was lost.
        """
        if self.workers == 1:
            return numbers
        local = np.asarray(numbers, np.float64)
        with self.catch_worker_loss():
            of_chief = np.asarray(_broadcast_chief(self.strategy, tf.constant(local.ravel())))
        return of_chief.reshape(local.shape)

    def broadcast_number(self, number: float) -> float:
        """Returns the chief's number on every worker, see `broadcast`."""
        return float(self.broadcast(number))

    def broadcast_text(self, text: str) -> str:
        """Returns the chief's text on every worker, see `broadcast`."""
        if self.workers == 1:
            return text
        local = np.frombuffer(text.encode(), np.uint8)
        size = int(self.broadcast(local.size))
        return bytes(self.broadcast(np.resize(local, size)).astype(np.uint8)).decode()

    def run(self, step: Callable[..., Any], *batch: Any) -> list[Any]:
        """Runs a function on every replica of this worker, within a graph.

        Args:
            step: Function whose results are the same on every replica, as those of `all_reduce`.
            batch: This worker's part of a batch, passed to every replica.

        Returns:
            The results of the first replica.
        """
        local_results = self.strategy.experimental_local_results
        return [local_results(result)[0] for result in self.strategy.run(step, args=batch)]

    def shard(self, tiles: Any) -> Any:
        """Returns the tiles of the calling replica from this worker's part of a batch."""
        local = self.replicas // self.workers
        if local == 1:
            return tiles
        number = tf.distribute.get_replica_context().replica_id_in_sync_group % local
        count = tf.shape(tiles)[0] // local
        return tiles[number * count : (number + 1) * count]

    def all_reduce(self, numbers: list[Any]) -> list[Any]:
        """Returns the sums over all replicas, on every replica.

        Keras divides a loss by the number of replicas, so sums of losses and gradients are means
        over the pixels of the whole batch.
        """
        sums: list[Any] = tf.distribute.get_replica_context().all_reduce(_SUM, numbers)
        return sums

    def average(self, statistics: list[Any]) -> None:
        """Assigns the mean over all replicas to the statistics of batch normalization."""
        if self.replicas > 1 and statistics:
            values = [tf.convert_to_tensor(variable) / self.replicas for variable in statistics]
            for variable, mean in zip(statistics, self.all_reduce(values), strict=True):
                variable.assign(mean)

    @contextmanager
    def catch_worker_loss(self, state: Sequence[Any] = ()) -> Iterator[None]:
        """Turns TensorFlow's errors about a lost worker into a `ConnectionError`.

        Args:
            state: Variables that get back their earlier values in that case.

        Raises:
            ConnectionError: If a worker was lost.
        """
        if self.workers == 1:
            yield
            return
        before = [variable.numpy() for variable in state]
        try:
            yield
        except _LOST as error:
            for variable, value in zip(state, before, strict=True):
                variable.assign(value)
            raise ConnectionError(
                f"worker {self.worker} of {self.workers}: another worker has ended or cannot be "
                "reached, so training stops; start all workers again, with --resume if the run has "
                "a checkpoint"
            ) from error


SINGLE = Cluster()


def join(distribution: Distribution | None) -> Cluster:
    """Joins the devices or workers that train together; waits for all workers.

    It must be called before any other use of TensorFlow.

    Args:
        distribution: "mirrored" for all GPUs of this machine, "multiworker" for the workers that
            TF_CONFIG names, "auto" for those available, or None for one device.

    Raises:
        ValueError: If there is only one device, or TF_CONFIG does not name the workers.
        ConnectionError: If the workers cannot connect.
    """
    if distribution not in (None, *get_args(Distribution)):
        listed = ", ".join(f'"{name}"' for name in get_args(Distribution))
        raise ValueError(
            f"distribute must be one of {listed}. Received: distribute={distribution!r}"
        )
    chosen = _available() if distribution == "auto" else distribution
    if chosen == "multiworker":
        return _join_workers()
    return _mirrored() if chosen == "mirrored" else SINGLE


def copy_weights(source: Any, target: Any) -> None:
    """Copies all variables of a model to another model with the same layers."""
    if source is not target:
        for variable, copy in zip(source.variables, target.variables, strict=True):
            copy.assign(variable.numpy())


def reseed_dropout(cluster: Cluster, model: Any) -> None:
    """Offsets the dropout seeds, so that each replica drops other features."""
    weights = {id(variable) for variable in model.weights}
    for seed in (variable for variable in model.variables if id(variable) not in weights):
        copies = cluster.strategy.experimental_local_results(seed.value)
        for number, copy in enumerate(copies, cluster.worker * len(copies)):
            copy.assign_add(tf.constant([number, 0], copy.dtype))


def _available() -> Distribution | None:
    if os.environ.get(_CONFIG) and len(_read_config()[0]) > 1:
        return "multiworker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else None


def _mirrored() -> Cluster:
    logical = tf.config.list_logical_devices
    devices = [device.name for device in logical("GPU") or logical("CPU")]
    if len(devices) < 2:
        raise ValueError(
            "--distribute mirrored needs at least two GPUs on this machine. Received: "
            f"{len(logical('GPU'))}; leave it out, or run keras-unet doctor if there are more"
        )
    _log.info(f"training on {len(devices)} devices of this machine")
    return Cluster(tf.distribute.MirroredStrategy(devices))


def _join_workers() -> Cluster:
    addresses, worker = _read_config()
    if len(addresses) < 2:
        raise ValueError(
            f"--distribute multiworker needs {_CONFIG} to name at least two workers. Received: "
            f"{len(addresses)}; leave it out, or set {_CONFIG}={_EXAMPLE}"
        )
    if worker == 0:
        _log.info(f"waiting for the {len(addresses)} workers at {', '.join(addresses)}")
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError) as error:
        raise ConnectionError(
            f"worker {worker} of {len(addresses)}: expected to connect to the others at "
            f"{', '.join(addresses)}. Received: {str(error).splitlines()[0]}; check that each is "
            "started, that its address is correct and free, and that no firewall blocks it"
        ) from error
    return Cluster(strategy, len(addresses), worker)


def _read_config() -> tuple[list[str], int]:
    """Reads the addresses of all workers and the number of this one from TF_CONFIG."""
    text = os.environ.get(_CONFIG, "")
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        jobs = {name: list(cluster.get(name, [])) for name in ("chief", "worker")}
        offset = {"chief": 0, "worker": len(jobs["chief"])}[task["type"]]
        index = int(task["index"])
        jobs[task["type"]][index]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{_CONFIG} must name the workers and which of them this process is, as {_EXAMPLE}. "
            f"Received: {text or 'none'}"
        ) from error
    return [*jobs["chief"], *jobs["worker"]], offset + index


@tf.function  # type: ignore[untyped-decorator]  # TensorFlow is untyped
def _broadcast_chief(strategy: Any, numbers: Any) -> Any:
    """Sums the chief's numbers and zeros of the other workers, which gives the chief's."""

    def contribute() -> Any:
        context = tf.distribute.get_replica_context()
        is_first = tf.equal(context.replica_id_in_sync_group, 0)
        addend = tf.where(is_first, numbers, tf.zeros_like(numbers))
        return context.all_reduce(_SUM, addend)

    return strategy.experimental_local_results(strategy.run(contribute))[0]
