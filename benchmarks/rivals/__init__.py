"""This package beside StarDist, nnU-Net and a plain Keras U-Net, at equal minutes of training."""
