"""Training on several devices of this process, and on the processes of other machines.

`tf.distribute` gives every replica, a GPU in general, its copy of the network and its tiles of each
batch; the gradients are added up over all of them. The chief, the first worker, decides and writes;
the others are broadcast. It shows in nothing but time how many there are: `--resume` and `--repeat` may go
on with more or fewer, as long as each takes as many tiles of a batch as the others.
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
        strategy: Of `tf.distribute`; the default one has one replica.
        workers: Processes that train together.
        worker: Number of this one, from 0; the first is the chief.
    """

    strategy: Any = field(default_factory=tf.distribute.get_strategy)
    workers: int = 1
    worker: int = 0

    @property
    def replicas(self) -> int:
        """Copies of the network, over all workers."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def is_chief(self) -> bool:
        """Tells whether this process decides and writes."""
        return self.worker == 0

    def to_dict(self) -> dict[str, int]:
        """Returns how many train together, for the record of a run."""
        return {"workers": self.workers, "replicas": self.replicas}

    def check(self, batch_size: int, precision: str) -> None:
        """Makes sure that the replicas can train with such batches, in such a precision.

        Raises:
            ValueError: They would not get as many tiles each, or would scale the loss.
        """
        if self.replicas > 1 and precision == "float16":
            raise ValueError(
                "precision must be float32 or bfloat16 where several replicas train together. "
                "Received: precision='float16'; choose another, or leave --distribute out"
            )
        if batch_size % self.replicas:
            fitting = [str(n) for n in range(1, batch_size + 1) if batch_size % n == 0]
            raise ValueError(
                "replicas must be of a number that divides the tiles of a batch, as the run was "
                f"started with. Received: replicas={self.replicas} for {batch_size} tiles; go on "
                f"with {' or '.join(fitting)}"
            )

    def replicated(self, model: Any) -> Any:
        """Builds a model like another on every replica; where there is one, it is the model."""
        if self.replicas == 1 and self.workers == 1:
            return model
        with self.strategy.scope():
            return keras.models.clone_model(model)

    def share(self, variables: Mapping[str, Any]) -> None:
        """Puts the chief's numbers into the variables of every worker."""
        if self.workers > 1:
            for variable in variables.values():
                variable.assign(self.broadcast(variable.numpy()))

    def broadcast(self, numbers: Any) -> Any:
        """Returns the chief's numbers to every worker. All call it together, and wait here.

        Raises:
            ConnectionError: If a worker is gone.
        """
        if self.workers == 1:
            return numbers
        mine = np.asarray(numbers, np.float64)
        with self.catch_worker_loss():
            of_chief = np.asarray(_of_chief(self.strategy, tf.constant(mine.ravel())))
        return of_chief.reshape(mine.shape)

    def broadcast_number(self, number: float) -> float:
        """Returns the chief's number to every worker, as `broadcast` does."""
        return float(self.broadcast(number))

    def broadcast_text(self, text: str) -> str:
        """Returns the chief's text to every worker, as `broadcast` does."""
        if self.workers == 1:
            return text
        mine = np.frombuffer(text.encode(), np.uint8)
        size = int(self.broadcast(mine.size))
        return bytes(self.broadcast(np.resize(mine, size)).astype(np.uint8)).decode()

    def run(self, step: Callable[..., Any], *batch: Any) -> list[Any]:
        """Runs a function on every replica of this worker, within a graph.

        Args:
            step: Returns numbers that are the same on every replica, as `all_reduce` makes them.
            batch: This worker's shard of a batch, given to each.
        """
        local = self.strategy.experimental_local_results
        return [local(one)[0] for one in self.strategy.run(step, args=batch)]

    def shard(self, tiles: Any) -> Any:
        """Takes from this worker's shard of a batch the tiles of the replica that asks."""
        local = self.replicas // self.workers
        if local == 1:
            return tiles
        number = tf.distribute.get_replica_context().replica_id_in_sync_group % local
        count = tf.shape(tiles)[0] // local
        return tiles[number * count : (number + 1) * count]

    def all_reduce(self, numbers: list[Any]) -> list[Any]:
        """Adds up over all replicas; asked by each, given to each.

        Keras divides a loss by the number of replicas, so that sums of losses and gradients are
        means over the pixels of the whole batch.
        """
        sums: list[Any] = tf.distribute.get_replica_context().all_reduce(_SUM, numbers)
        return sums

    def average(self, statistics: list[Any]) -> None:
        """Gives every replica the mean of the statistics that a batch normalization has kept."""
        if self.replicas > 1 and statistics:
            values = [tf.convert_to_tensor(one) / self.replicas for one in statistics]
            for one, mean in zip(statistics, self.all_reduce(values), strict=True):
                one.assign(mean)

    @contextmanager
    def catch_worker_loss(self, state: Sequence[Any] = ()) -> Iterator[None]:
        """Lets the loss of another worker end the body in one line.

        Args:
            state: Variables that are to be as they were before the body where that happens.

        Raises:
            ConnectionError: If a worker is gone.
        """
        if self.workers == 1:
            yield
            return
        before = [one.numpy() for one in state]
        try:
            yield
        except _LOST as error:
            for one, was in zip(state, before, strict=True):
                one.assign(was)
            raise ConnectionError(
                f"worker {self.worker} of {self.workers}: another worker has ended or cannot be "
                "reached, so training stops here; start all of them again, with --resume if the "
                "run has a checkpoint"
            ) from error


SINGLE = Cluster()


def join(distribution: Distribution | None) -> Cluster:
    """Finds out what trains together; with several workers, waits for all of them.

    It is called before anything else is asked of TensorFlow.

    Args:
        distribution: "mirrored" for all GPUs of this machine, "multiworker" for the workers that
            TF_CONFIG names, "auto" for whichever there are, or None for one device.

    Raises:
        ValueError: If there is only one device, or TF_CONFIG does not say who takes shard.
        ConnectionError: If the workers do not find each other.
    """
    if distribution not in (None, *get_args(Distribution)):
        listed = ", ".join(f'"{word}"' for word in get_args(Distribution))
        raise ValueError(
            f"distribute must be one of {listed}. Received: distribute={distribution!r}"
        )
    chosen = _available() if distribution == "auto" else distribution
    if chosen == "multiworker":
        return _join_workers()
    return _mirrored() if chosen == "mirrored" else SINGLE


def copy_weights(source: Any, target: Any) -> None:
    """Copies every number of a model to a model of the same layers; to itself, nothing."""
    if source is not target:
        for one, other in zip(source.variables, target.variables, strict=True):
            other.assign(one.numpy())


def reseed_dropout(cluster: Cluster, model: Any) -> None:
    """Lets the replicas but the first draw dropouts of their own, by the state of their seeds."""
    weights = {id(one) for one in model.weights}
    for seed in (one for one in model.variables if id(one) not in weights):
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
            f"{len(logical('GPU'))}; leave it out, and see keras-unet doctor if there are more"
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
            f"worker {worker} of {len(addresses)}: expected to meet the others at "
            f"{', '.join(addresses)}. Received: {str(error).splitlines()[0]}; see that each is "
            "started, that its address is its own and free, and that no firewall is between"
        ) from error
    return Cluster(strategy, len(addresses), worker)


def _read_config() -> tuple[list[str], int]:
    """Reads from TF_CONFIG the addresses of all workers, and which of them this one is."""
    text = os.environ.get(_CONFIG, "")
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        jobs = {name: list(cluster.get(name, [])) for name in ("chief", "worker")}
        before = {"chief": 0, "worker": len(jobs["chief"])}[task["type"]]
        index = int(task["index"])
        jobs[task["type"]][index]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{_CONFIG} must name the workers and which of them this one is, as {_EXAMPLE}. "
            f"Received: {text or 'none'}"
        ) from error
    return [*jobs["chief"], *jobs["worker"]], before + index


@tf.function  # type: ignore[untyped-decorator]  # TensorFlow is untyped
def _of_chief(strategy: Any, numbers: Any) -> Any:
    """Adds up the chief's numbers and zeros, which gives every worker the chief's."""

    def share() -> Any:
        context = tf.distribute.get_replica_context()
        is_first = tf.equal(context.replica_id_in_sync_group, 0)
        mine = tf.where(is_first, numbers, tf.zeros_like(numbers))
        return context.all_reduce(_SUM, mine)

    return strategy.experimental_local_results(strategy.run(share))[0]
