"""The same network in PyTorch, channels last, with the same weights, loss and optimizer."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from benchmarks.contenders import Work
from benchmarks.peers import inputs
from keras_unet.architecture import Architecture
from keras_unet.training.schedule import Schedule

_DEVICES = {"cpu": "cpu", "gpu": "cuda"}
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class UNet(nn.Module):  # type: ignore[misc]  # PyTorch may not be installed where types are checked
    """Figure 1, with layers named as in `build_unet`; logits are float32 in every precision."""

    def __init__(self, network: Architecture) -> None:
        """Builds the layers with the weights of all contenders."""
        super().__init__()
        self.network = network
        drawn = inputs.weights(network)
        self.layers = nn.ModuleDict({name: _layer(*both) for name, both in drawn.items()})

    def forward(self, features: Any) -> Any:
        """Computes the logits, `(batch, classes, height, width)`."""
        skips = []
        for level in range(self.network.depth):
            features = self._convolve_twice(features, f"level{level}_down")
            skips.append(features)
            features = functional.max_pool2d(features, 2)
        features = self._convolve_twice(features, "bottom")
        for level in reversed(range(self.network.depth)):
            cut = self.network.crop(level)
            skip, up = skips[level], self.layers[f"level{level}_up"](features)
            features = torch.cat([skip[..., cut:-cut, cut:-cut], up], dim=1)
            features = self._convolve_twice(features, f"level{level}_up")
        with torch.autocast(features.device.type, enabled=False):
            return self.layers["logits"](features.float())

    def _convolve_twice(self, features: Any, name: str) -> Any:
        for number in (1, 2):
            features = functional.relu_(self.layers[f"{name}_conv{number}"](features))
        return features


def training_step(
    network: Architecture, tile: int, precision: str, rate: float, device: str, compiled: bool
) -> Work:
    """Training step on one batch, skipped if the gradient is not finite."""
    place = _ready(device)
    model = UNet(network).to(place, memory_format=torch.channels_last)
    model.train()
    parameters = list(model.parameters())
    plan = Schedule()
    optimizer = torch.optim.SGD(parameters, rate, momentum=plan.momentum, nesterov=True, fused=True)
    image, y_true = (_tensor(part).to(place) for part in inputs.training_batch(network, tile))
    labels, weights = y_true[:, 0].long(), y_true[:, 1].contiguous()
    score = torch.compile(model) if compiled else model

    def step() -> list[Any]:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(place, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = score(image)
        loss = (functional.cross_entropy(logits, labels, reduction="none") * weights).mean()
        loss.backward()
        if torch.isfinite(nn.utils.clip_grad_norm_(parameters, plan.clip_norm)):
            optimizer.step()
        return [np.float32(loss.item())]

    return step


def prediction(
    network: Architecture, side: int, tile: int | None, precision: str, device: str, compiled: bool
) -> Work:
    """Prediction of an image by the same tiles; weights are stored in the given precision."""
    place, kind = _ready(device), _TYPES[precision]
    model = UNet(network).eval().to(place, kind, memory_format=torch.channels_last)
    model.layers["logits"].float()
    if compiled:
        torch._inductor.config.freezing = True  # noqa: SLF001 - it is documented under this name
    apply = torch.compile(model) if compiled else model
    image = inputs.normalized_image(side)

    def score(window: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = apply(_tensor(window).to(place, kind))
        probabilities: NDArray[np.float32] = (
            torch.softmax(logits, dim=1).permute(0, 2, 3, 1).cpu().numpy()
        )
        return probabilities

    def predict() -> list[Any]:
        with torch.inference_mode():
            return [inputs.stitched(score, image, network, tile)]

    return predict


def product(size: int, precision: str, device: str) -> Work:
    """Product of square matrices."""
    place, random = _ready(device), np.random.default_rng(0)
    one, other = (
        torch.from_numpy(random.standard_normal((size, size), np.float32)).to(
            place, _TYPES[precision]
        )
        for _ in range(2)
    )

    def multiply() -> list[Any]:
        with torch.inference_mode():
            return [np.float32((one @ other)[0, 0].item())]

    return multiply


def _ready(device: str) -> str:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_float32_matmul_precision("high" if device == "gpu" else "highest")
    torch.backends.cudnn.benchmark = True
    return _DEVICES[device]


def _layer(kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> Any:
    weight = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    size = kernel.shape[0]
    if size == 2:
        layer = nn.ConvTranspose2d(weight.shape[0], weight.shape[1], size, stride=2)
    else:
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], size)
    layer.weight.data, layer.bias.data = weight, torch.from_numpy(bias)
    return layer


def _tensor(batch: NDArray[np.float32]) -> Any:
    """Permutes an array `(batch, height, width, channels)` without changing its memory layout."""
    return torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
