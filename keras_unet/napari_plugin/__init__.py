"""napari plugin: trains, predicts and computes weight maps on open layers.

Each job runs in a process of its own (`child`), so that the window stays responsive, can stop the
job at any time, and survives if memory runs out.
"""
