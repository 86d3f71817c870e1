"""The library in one script: draw cells, train a small U-Net, label cells it has not seen.

    python examples/first_model.py --steps 600 --out first_model

Takes less than a minute. More steps and more pictures part touching cells better.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from keras_unet import (
    Architecture,
    InstanceRule,
    TrainingImage,
    TrainingPlan,
    build_dataset,
    build_unet,
    label_instances,
    predict_image,
    separate_touching,
    train,
    weight_map,
)
from keras_unet.data.standardisation import Standardisation
from keras_unet.report import grey_picture, heat_picture, label_picture, montage, write_png
from keras_unet.synthetic import draw_cells


def training_image(seed: int) -> TrainingImage:
    """Draws cells; the network learns them with a gap between neighbours, weighed by equation 2."""
    image, cells = draw_cells(seed, size=(128, 128), cells=10)
    classes = (separate_touching(cells) > 0).astype(np.uint8)
    return TrainingImage(standardised(image), classes, weight_map(classes, cells))


def standardised(image: np.ndarray) -> np.ndarray:
    """Gives grey values zero mean and unit deviation, and a channel axis."""
    return Standardisation("image").apply(image[..., np.newaxis])


def main() -> None:
    """Trains, predicts a picture that training has not seen, and draws it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("first_model"))
    options = parser.parse_args()

    model = build_unet((None, None, 1), classes=2, depth=3, base_filters=16)
    architecture = Architecture.of(model)
    tile_size = architecture.fitting_size(128 + 2 * architecture.margin)
    images = [training_image(seed) for seed in range(8)]
    train(
        model,
        lambda step: build_dataset(images, architecture, tile_size=tile_size, first=step),
        TrainingPlan(steps=options.steps),
        folder=options.out,
        on_step=lambda now: print(f"\rstep {now.step}, loss {now.loss:.3f}", end="", flush=True),
    )

    image, cells = draw_cells(seed=100, size=(128, 128), cells=10)
    probabilities = predict_image(model, standardised(image))  # (128, 128, 2)
    found = label_instances(probabilities[..., 1], InstanceRule(minimum_size=40))
    pictures = [
        grey_picture(image),
        label_picture(cells),
        heat_picture(probabilities[..., 1]),
        label_picture(found),
    ]
    write_png(
        options.out / "first_model.png",
        montage([pictures], ["image", "truth", "probability", "cells found"]),
    )
    print(f"\n{found.max()} of {cells.max()} cells: {options.out / 'first_model.png'}")


if __name__ == "__main__":
    main()
