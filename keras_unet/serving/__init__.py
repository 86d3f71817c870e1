"""Server of an exported model on this machine, by the REST routes of TensorFlow Serving."""
