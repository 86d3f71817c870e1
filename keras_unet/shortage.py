"""Detects out-of-memory errors of any library. TensorFlow is not imported."""

from __future__ import annotations

import sys


def is_memory_shortage(error: Exception) -> bool:
    """Tells whether memory ran out: in Python, in TensorFlow, or in oneDNN, which says status 1.

    >>> is_memory_shortage(MemoryError()), is_memory_shortage(ValueError())
    (True, False)
    """
    errors = getattr(sys.modules.get("tensorflow"), "errors", None)  # not imported for this
    if errors is None or isinstance(error, MemoryError):
        return isinstance(error, MemoryError)
    in_onednn = isinstance(error, errors.AbortedError) and "Status: 1," in str(error)
    return in_onednn or isinstance(error, errors.ResourceExhaustedError)
