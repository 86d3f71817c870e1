"""Runs the command `keras-unet` as `python -m keras_unet`."""

from keras_unet.cli import main

main(prog_name="keras-unet")
