"""The napari plugin: train, predict and weigh on the layers that are open.

The work is done in a process of its own (`child`), so that the window stays
awake, can stop the work at any moment, and lives on where memory does not hold it. Nothing else in
the package imports this one.
"""
