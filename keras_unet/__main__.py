"""Lets `python -m keras_unet` stand for the command `keras-unet`."""

from keras_unet.cli import main

main(prog_name="keras-unet")
