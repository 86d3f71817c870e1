"""Runs a SavedModel through TensorFlow's C API by ctypes, without Python's TensorFlow.

This is the way that a server in C++ takes: load the graph, feed tensors, fetch tensors. As a
program, `c_api.py FOLDER REQUESTS ANSWERS` answers a list of requests, each a pair of inputs by
tensor name and of outputs by tensor name; an error is answered by its message. It prints the most
memory, in MiB, that it has had.
"""

from __future__ import annotations

import ctypes
import importlib.util
import resource
import sys
from ctypes import c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path

import numpy as np

TYPES = {1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 9: np.int64}
STRING = 7
STRING_BYTES = 24


class Place(ctypes.Structure):
    """TF_Output: an output of an operation."""

    _fields_ = [("operation", c_void_p), ("index", c_int)]


@cache
def library():
    """The wheel's library; what it depends on is found through it, and seen by nobody else."""
    package, *_ = importlib.util.find_spec("tensorflow").submodule_search_locations
    loaded = ctypes.CDLL(str(Path(package) / "libtensorflow_cc.so.2"))
    for name in ("NewStatus", "NewGraph", "NewSessionOptions", "AllocateTensor", "TensorData"):
        getattr(loaded, f"TF_{name}").restype = c_void_p
    for name in ("LoadSessionFromSavedModel", "GraphOperationByName", "StringGetDataPointer"):
        getattr(loaded, f"TF_{name}").restype = c_void_p
    loaded.TF_Message.restype = c_char_p
    loaded.TF_StringGetSize.restype = c_size_t
    loaded.TF_Dim.restype = c_int64
    return loaded


class RunError(ValueError):
    """What TensorFlow says against it, with its code, which is also that of gRPC."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Status:
    """TF_Status, which raises where a call has failed."""

    def __init__(self):
        self.pointer = c_void_p(library().TF_NewStatus())

    def check(self):
        code = library().TF_GetCode(self.pointer)
        message = library().TF_Message(self.pointer).decode(errors="replace")
        library().TF_DeleteStatus(self.pointer)
        if code:
            raise RunError(code, message)


class SavedModel:
    """A loaded graph."""

    def __init__(self, folder):
        tf, status = library(), Status()
        self.graph = c_void_p(tf.TF_NewGraph())
        options, tags = c_void_p(tf.TF_NewSessionOptions()), (c_char_p * 1)(b"serve")
        path = c_char_p(str(folder).encode())
        self.session = c_void_p(
            tf.TF_LoadSessionFromSavedModel(
                options, None, path, tags, 1, self.graph, None, status.pointer
            )
        )
        status.check()

    def run(self, inputs, outputs):
        """Feeds arrays by tensor name and fetches others; bytes are in arrays of objects."""
        status = Status()
        fed = (c_void_p * len(inputs))(*(to_tensor(np.asarray(one)) for one in inputs.values()))
        fetched = (c_void_p * len(outputs))()
        library().TF_SessionRun(
            *(self.session, None),
            *(self.places(inputs), fed, len(inputs)),
            *(self.places(outputs), fetched, len(outputs)),
            *(None, 0, None, status.pointer),
        )
        for tensor, value in zip(fed, inputs.values(), strict=True):
            release(c_void_p(tensor), np.asarray(value))
        status.check()
        return [moved_to_array(c_void_p(tensor)) for tensor in fetched]

    def places(self, names):
        return (Place * len(names))(*(self.place(name) for name in names))

    def place(self, name):
        operation, index = name.split(":")
        found = library().TF_GraphOperationByName(self.graph, c_char_p(operation.encode()))
        return Place(found, int(index))


def to_tensor(array):
    tf, shape = library(), (c_int64 * array.ndim)(*array.shape)
    is_text = array.dtype == object
    code = STRING if is_text else next(code for code, one in TYPES.items() if one == array.dtype)
    size = array.size * STRING_BYTES if is_text else array.nbytes
    tensor = c_void_p(tf.TF_AllocateTensor(code, shape, array.ndim, c_size_t(size)))
    data = tf.TF_TensorData(tensor)
    if not is_text:
        ctypes.memmove(data, np.ascontiguousarray(array).ctypes.data, size)
        return tensor.value
    for number, text in enumerate(array.ravel()):
        place = c_void_p(data + number * STRING_BYTES)
        tf.TF_StringInit(place)
        tf.TF_StringCopy(place, c_char_p(text), c_size_t(len(text)))
    return tensor.value


def release(tensor, array):
    """Frees a tensor of our own; the texts in it are freed one by one."""
    if array.dtype == object:
        data = library().TF_TensorData(tensor)
        for number in range(array.size):
            library().TF_StringDealloc(c_void_p(data + number * STRING_BYTES))
    library().TF_DeleteTensor(tensor)


def moved_to_array(tensor):
    array = to_array(tensor)
    library().TF_DeleteTensor(tensor)
    return array


def to_array(tensor):
    tf = library()
    shape = [tf.TF_Dim(tensor, axis) for axis in range(tf.TF_NumDims(tensor))]
    code, data = tf.TF_TensorType(tensor), tf.TF_TensorData(tensor)
    if code != STRING:
        array = np.empty(shape, TYPES[code])
        ctypes.memmove(array.ctypes.data, data, array.nbytes)
        return array
    array = np.empty(shape, object)
    for number in range(array.size):
        place = c_void_p(data + number * STRING_BYTES)
        size = tf.TF_StringGetSize(place)
        array.ravel()[number] = ctypes.string_at(tf.TF_StringGetDataPointer(place), size)
    return array


def answer(model, inputs, outputs):
    try:
        return model.run(inputs, outputs)
    except ValueError as error:
        return str(error)


def main(folder, requests, answers):
    model = SavedModel(folder)
    given = [answer(model, *request) for request in np.load(requests, allow_pickle=True)]
    assert not {"tensorflow", "keras", "keras_unet"} & set(sys.modules)
    table = np.empty(len(given), object)
    table[:] = given
    np.save(answers, table, allow_pickle=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
