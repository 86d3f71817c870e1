"""The exported graph: equal to the prediction of the package, by whatever way it is run."""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from keras_unet.architecture import Architecture
from keras_unet.backend import keras, precision_policy, tf
from keras_unet.data.encoding import LabelEncoding
from keras_unet.data.images import as_channels, pixels_of, read_planes
from keras_unet.data.normalization import Normalization
from keras_unet.export.graph import GraphTiling
from keras_unet.export.saved_model import write_graph
from keras_unet.model import unet_of
from keras_unet.prediction.predict import predict_image
from keras_unet.prediction.segmenter import Member, Segmenter
from keras_unet.runs import Run

C_API = Path(__file__).with_name("c_api.py")
ABOUT = {"classes": [{"class": 0, "name": "münzen, 細胞"}]}
FROZEN = pytest.mark.parametrize("frozen", [False, True], ids=["variables", "frozen"])


class Exported:
    """A drawn network, what was written of it, and its signatures."""

    def __init__(self, folder, architecture, *, tile=None, precision="float32", mode="image"):
        keras.utils.set_random_seed(3)
        with precision_policy(precision):
            self.network = unet_of(architecture)
        self.tiling = GraphTiling.of(architecture, tile)
        n = architecture.channels
        numbers = ((100.0,) * n, (30.0,) * n) if mode == "dataset" else ()
        encoding = LabelEncoding("classes", tuple(range(architecture.classes)))
        rule = Normalization(mode, *numbers)
        self.run = Run(
            folder=folder,
            architecture=architecture,
            encoding=encoding,
            normalization=rule,
            precision=precision,
            record={},
        )
        self.folder = folder

    def write(self, *, frozen=False):
        parts = self.folder, self.run, self.network, self.tiling, ABOUT
        write_graph(*parts, frozen=frozen)
        self.loaded = tf.saved_model.load(str(self.folder))
        return self

    def __call__(self, signature="serving_default", **inputs):
        return {
            name: value.numpy()
            for name, value in self.loaded.signatures[signature](
                **{name: tf.constant(value) for name, value in inputs.items()}
            ).items()
        }

    def expected(self, image):
        return predict_image(
            self.network, self.run.normalization.apply(image), tile_size=self.tiling.tile_size
        )

    def tensors(self, signature):
        """Names of the tensors of a signature's inputs and outputs."""
        message = saved_model_pb2.SavedModel()
        message.ParseFromString((self.folder / "saved_model.pb").read_bytes())
        found = message.meta_graphs[0].signature_def[signature]
        return [
            {name: one.name for name, one in part.items()} for part in (found.inputs, found.outputs)
        ]

    def by_c_api(self, *requests):
        """Answers of a fresh process that has only TensorFlow's C library."""
        table = np.empty((len(requests), 2), object)
        outputs = []
        for row, (signature, inputs) in zip(table, requests, strict=True):
            taken, given = self.tensors(signature)
            row[:] = {taken[name]: value for name, value in inputs.items()}, list(given.values())
            outputs.append(list(given))
        folder = self.folder.parent
        np.save(folder / "requests.npy", table, allow_pickle=True)
        command = [sys.executable, "-I", C_API, self.folder, "requests.npy", "answers.npy"]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        self.mebibytes = float(result.stdout)
        answers = np.load(folder / "answers.npy", allow_pickle=True)
        return [
            one if isinstance(one, str) else dict(zip(names, one, strict=True))
            for one, names in zip(answers, outputs, strict=True)
        ]


def drawn(*shape, seed=0, highest=255):
    return np.random.default_rng(seed).integers(0, highest + 1, shape).astype(np.float32)


def png(pixels):
    return tf.io.encode_png(pixels).numpy()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Depth 1, one channel, three classes; tiles of 26 pixels that fill 10."""
    folder = tmp_path_factory.mktemp("exported") / "1"
    return Exported(folder, Architecture(depth=1, base_filters=2, classes=3), tile=26).write()


@given(height=st.integers(1, 60), width=st.integers(1, 60), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_any_size_is_predicted_as_the_package_does(exported, height, width, seed):
    image = drawn(height, width, 1, seed=seed, highest=65535)
    answer = exported(image=image[None])
    expected = exported.expected(image)
    np.testing.assert_allclose(answer["probabilities"][0], expected, atol=1e-5)
    near = np.sort(expected, axis=-1)
    decided = near[..., -1] - near[..., -2] > 1e-4
    classes = expected.argmax(-1)
    np.testing.assert_array_equal(answer["classes"][0][decided], classes[decided])


@given(height=st.integers(1, 40), width=st.integers(1, 40), scale=st.floats(0.125, 3, width=32))
@settings(deadline=None, max_examples=5)
def test_a_scaled_image_is_predicted_as_the_package_does(exported, height, width, scale):
    image = drawn(height, width, 1, highest=65535)
    answer = exported("scaled", image=image[None], scale=np.float32([scale]))
    member = Member(exported.run, lambda _: exported.network)
    tile = exported.tiling.tile_size
    expected = Segmenter(exported.run, (member,)).predict(image, tile_size=tile, scale=scale)
    np.testing.assert_allclose(answer["probabilities"][0], expected, atol=1e-5)


def test_each_image_of_a_batch_has_its_scale_which_is_1_by_default(exported):
    images = drawn(2, 30, 20, 1)
    both = exported("scaled", image=images, scale=np.float32([1.5, 0.5]))["probabilities"]
    for image, scale, probabilities in zip(images, (1.5, 0.5), both, strict=True):
        alone = exported("scaled", image=image[None], scale=np.float32([scale]))
        np.testing.assert_allclose(probabilities, alone["probabilities"][0], atol=1e-6)
    plain = exported(image=images)
    (default,) = exported.by_c_api(("scaled", {"image": images}))
    np.testing.assert_array_equal(default["probabilities"], plain["probabilities"])
    message = saved_model_pb2.SavedModel()
    message.ParseFromString((exported.folder / "saved_model.pb").read_bytes())
    defaults = message.meta_graphs[0].signature_def["scaled"].defaults
    assert tf.make_ndarray(defaults["scale"]).tolist() == [1.0]


BATTERY = {
    "same padding": ({"depth": 1, "padding": "same"}, {"tile": 40}),
    "depth 2, RGB, numbers of the data": ({"depth": 2, "channels": 3}, {"mode": "dataset"}),
    "two channels, group": ({"depth": 1, "channels": 2, "norm_layer": "group"}, {"tile": 30}),
    "depth 3, four classes": ({"depth": 3, "classes": 4, "padding": "same"}, {"tile": 128}),
    "depth 4, RGB": ({"depth": 4, "channels": 3, "classes": 3}, {"tile": 204}),
    "batch normalization, measured": ({"depth": 1, "norm_layer": "batch"}, {"tile": 22}),
}


@FROZEN
@pytest.mark.parametrize(("numbers", "options"), BATTERY.values(), ids=BATTERY)
def test_networks_of_all_kinds(tmp_path, numbers, options, frozen):
    network = Architecture(base_filters=2, **numbers)
    exported = Exported(tmp_path / "1", network, **options).write(frozen=frozen)
    images = drawn(2, 41, 33, network.channels)
    answer = exported(image=images)
    for image, probabilities, classes in zip(images, *answer_parts(answer), strict=True):
        np.testing.assert_allclose(probabilities, exported.expected(image), atol=1e-5)
        np.testing.assert_array_equal(classes, probabilities.argmax(-1))


def answer_parts(answer):
    return answer["probabilities"], answer["classes"]


def test_a_large_image(tmp_path):
    network = Architecture(depth=2, base_filters=2)
    exported = Exported(tmp_path / "1", network).write()
    image = drawn(1500, 1100, 1)
    answer = exported(image=image[None])["probabilities"][0]
    np.testing.assert_allclose(answer, exported.expected(image), atol=1e-5)


def test_a_constant_image_and_wide_greys_are_normalized_alike(exported):
    for image in (np.full((9, 8, 1), 0.1), 1e6 + drawn(300, 8, 1)):
        pixels = image.astype(np.float32)
        answer = exported(image=pixels[None])["probabilities"][0]
        np.testing.assert_allclose(answer, exported.expected(pixels), atol=1e-5)


FILES = {
    "8 bit": ("L", np.uint8, "PNG"),
    "16 bit": ("I;16", np.uint16, "PNG"),
    "JPEG": ("L", np.uint8, "JPEG"),
    "equal colours": ("RGB", np.uint8, "PNG"),
    "grey and alpha": ("LA", np.uint8, "PNG"),
}


def saved(path, mode, dtype, kind, seed=0):
    shape = 20 + seed, 30
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    image = Image.fromarray(pixels)
    (image if dtype == np.uint16 else image.convert(mode)).save(path, kind)
    return path


def test_files_of_many_kinds_and_sizes_in_one_batch(exported, tmp_path):
    files = [saved(tmp_path / f"{n}", *kind, seed=n) for n, kind in enumerate(FILES.values())]
    contents = [path.read_bytes() for path in files]
    answer = exported("classify_bytes", image_bytes=contents)
    assert set(answer) == {"classes_bytes", "probabilities_bytes"}
    parts = answer["classes_bytes"], answer["probabilities_bytes"]
    for path, classes, serialised in zip(files, *parts, strict=True):
        pixels = pixels_of(as_channels(read_planes(path)[0], 1, path), path)
        probabilities = tf.io.parse_tensor(serialised, tf.float32).numpy()
        np.testing.assert_allclose(probabilities, exported.expected(pixels), atol=1e-5)
        shown = np.asarray(Image.open(io.BytesIO(classes)))
        np.testing.assert_array_equal(shown, probabilities.argmax(-1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_in_files(tmp_path, dtype):
    network = Architecture(depth=1, base_filters=2, channels=3)
    exported = Exported(tmp_path / "1", network, tile=40, mode="dataset").write()
    image = drawn(12, 13, 3, highest=np.iinfo(dtype).max)
    (serialised,) = exported("classify_bytes", image_bytes=[png(image.astype(dtype))])[
        "probabilities_bytes"
    ]
    answer = tf.io.parse_tensor(serialised, tf.float32).numpy()
    np.testing.assert_allclose(answer, exported.expected(image), atol=1e-5)


def test_the_bare_network(exported):
    tile = drawn(2, 26, 28, 1) / 255
    logits = exported("tile", tile=tile)["logits"]
    np.testing.assert_allclose(logits, exported.network(tile), atol=1e-5)


@FROZEN
def test_half_precision_keeps_float32_outside(tmp_path, frozen):
    network = Architecture(depth=1, base_filters=2)
    exported = Exported(tmp_path / "1", network, tile=40, precision="bfloat16")
    exported.write(frozen=frozen)
    image = drawn(30, 30, 1)
    answer = exported(image=image[None])["probabilities"]
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer[0], exported.expected(image), atol=2e-2)
    in_graph = (tmp_path / "1" / "saved_model.pb").read_bytes()
    (fed,) = exported.loaded.signatures["serving_default"].structured_input_signature[1].values()
    assert fed.dtype == tf.float32
    assert any(node.attr["DstT"].type == tf.bfloat16.as_datatype_enum for node in nodes(in_graph))


def nodes(content):
    message = saved_model_pb2.SavedModel()
    message.ParseFromString(content)
    graph = message.meta_graphs[0].graph_def
    return [*graph.node, *(node for one in graph.library.function for node in one.node_def)]


FORBIDDEN = {"PyFunc", "EagerPyFunc", "PyFuncStateless", "XlaLaunch"}


@FROZEN
def test_operations_are_stock(tmp_path, frozen):
    network = Architecture(depth=1, base_filters=2)
    folder = Exported(tmp_path / "1", network, tile=26).write(frozen=frozen).folder
    found = nodes((folder / "saved_model.pb").read_bytes())
    operations = {node.op for node in found}
    assert not operations & FORBIDDEN
    assert not any(node.attr["_XlaMustCompile"].b for node in found)
    assert ("VarHandleOp" in operations) == (not frozen)


def test_each_signature_is_traced_once_for_images_of_all_sizes(tmp_path):
    """What is traced while a request is answered would be traced by no server."""
    model = Exported(tmp_path / "model", Architecture(depth=1, base_filters=1))
    network, traces = model.network, []

    class Counted:
        variables = network.variables

        def __call__(self, tile, **options):
            traces.append(tile.shape)
            return network(tile, **options)

    model.network = Counted()
    model.write()
    for side in (1, 9, 30):
        model(image=drawn(1, side, 2 * side, 1))
        model("classify_bytes", image_bytes=[png(drawn(side, side, 1).astype(np.uint8))])
    assert len(traces) == 4  # of serving_default, scaled, classify_bytes and tile


def test_the_signatures_state_shapes(exported):
    message = saved_model_pb2.SavedModel()
    message.ParseFromString((exported.folder / "saved_model.pb").read_bytes())
    signatures = message.meta_graphs[0].signature_def
    shapes = {
        (signature, name): [axis.size for axis in taken.tensor_shape.dim]
        for signature in ("serving_default", "scaled", "classify_bytes", "tile", "about")
        for name, taken in signatures[signature].inputs.items()
    }
    assert shapes == {
        ("serving_default", "image"): [-1, -1, -1, 1],
        ("scaled", "image"): [-1, -1, -1, 1],
        ("scaled", "scale"): [-1],
        ("classify_bytes", "image_bytes"): [-1],
        ("tile", "tile"): [-1, -1, -1, 1],
        ("about", "query"): [-1],
    }


@pytest.mark.parametrize("batch", [1, 3])
def test_it_says_what_it_is_to_each_of_a_batch(exported, batch):
    answers = exported("about", query=[b""] * batch)["about"]
    assert [json.loads(one) for one in answers] == [ABOUT] * batch


@pytest.fixture(scope="module", params=[False, True], ids=["variables", "frozen"])
def served(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "1"
    network = Architecture(depth=1, base_filters=2, classes=3)
    return Exported(folder, network, tile=26).write(frozen=request.param)


def strings(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def test_the_c_library_gives_the_same(served):
    images, tile = drawn(2, 17, 31, 1), drawn(1, 26, 26, 1) / 255
    files = strings(png(images[0].astype(np.uint8)), png(images[1, :5].astype(np.uint8)))
    requests = {
        "serving_default": {"image": images},
        "classify_bytes": {"image_bytes": files},
        "tile": {"tile": tile},
    }
    answers = served.by_c_api(*requests.items())
    for image, probabilities in zip(images, answers[0]["probabilities"], strict=True):
        np.testing.assert_allclose(probabilities, served.expected(image), atol=1e-5)
    sizes = [Image.open(io.BytesIO(one)).size for one in answers[1]["classes_bytes"]]
    assert sizes == [(31, 17), (31, 5)]
    np.testing.assert_allclose(answers[2]["logits"], served.network(tile), atol=1e-5)


def test_memory_is_that_of_image_and_result_and_of_two_tiles(tmp_path):
    """The features of the first level alone would take 256 MiB of the whole image."""
    network = Architecture(depth=1, base_filters=16)
    exported = Exported(tmp_path / "1", network, tile=140).write()
    needed = []
    for side in 128, 2048:
        exported.by_c_api(("serving_default", {"image": drawn(1, side, side, 1)}))
        needed.append(exported.mebibytes)
    assert needed[1] - needed[0] < 256


WHOLE = png(np.zeros((9, 9, 1), np.uint8))
GIF = b"GIF89a" + bytes(40)
BAD = {
    "channels": ("serving_default", {"image": drawn(1, 5, 6, 3)}, "channels=1.*1 5 6 3"),
    "rank": ("serving_default", {"image": drawn(5, 6, 1)}, r"four dimensions.*\[5 6 1\]"),
    "no image": ("serving_default", {"image": drawn(0, 5, 6, 1)}, "at least one.*0 5 6 1"),
    "no pixel": ("serving_default", {"image": drawn(1, 0, 6, 1)}, "at least one pixel.*1 0 6 1"),
    "NaN": ("serving_default", {"image": drawn(1, 5, 6, 1) * np.float32("nan")}, "finite numbers"),
    "infinite": ("serving_default", {"image": drawn(1, 5, 6, 1) + np.float32("inf")}, "finite"),
    "tile": (
        "tile",
        {"tile": drawn(1, 25, 26, 1)},
        r"width of 18 pixels .* of 2.*\[1 25 26 1\]",
    ),
    "small tile": ("tile", {"tile": drawn(1, 26, 8, 1)}, r"width of 18 pixels.*\[1 26 8 1\]"),
    "scale": (
        "scaled",
        {"image": drawn(1, 5, 6, 1), "scale": np.float32([9])},
        "scale must be from 0.125 to 8.*9",
    ),
    "scales": (
        "scaled",
        {"image": drawn(1, 5, 6, 1), "scale": np.float32([1, 2])},
        r"scale must be \(1,\) or \(batch,\).*1 2",
    ),
    "no file": ("classify_bytes", {"image_bytes": strings()}, "at least one file"),
    "empty": ("classify_bytes", {"image_bytes": strings(b"")}, "PNG or JPEG files only"),
    "text": (
        "classify_bytes",
        {"image_bytes": strings(WHOLE, b"hello")},
        "PNG or JPEG files only",
    ),
    "GIF": ("classify_bytes", {"image_bytes": strings(GIF)}, "PNG or JPEG"),
    "cut": ("classify_bytes", {"image_bytes": strings(WHOLE[:-20])}, "PNG"),
    "colours": (
        "classify_bytes",
        {"image_bytes": strings(png(drawn(9, 9, 3).astype(np.uint8)))},
        r"channels=1 or 3 equal ones.*\[9 9 3\]",
    ),
}


def test_a_bad_request_names_the_rule_and_the_next_is_answered(served):
    whole = "classify_bytes", {"image_bytes": strings(WHOLE)}
    requests = [
        one for signature, inputs, _ in BAD.values() for one in ((signature, inputs), whole)
    ]
    answers = served.by_c_api(*requests)
    for (_, _, message), received in zip(BAD.values(), answers[::2], strict=True):
        assert isinstance(received, str)
        assert re.search(message, received, re.DOTALL), received
    assert all(len(received["classes_bytes"]) == 1 for received in answers[1::2])


def chunk(kind, content):
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def written_png(height, width, bits, colours, *between, samples=None):
    """A PNG written byte by byte; without samples it has none, whatever size it states."""
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    rows = b"" if samples is None else rows_of(samples, bits)
    parts = chunk(b"IHDR", header), *between, chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def rows_of(samples, bits):
    digits = (samples[..., None] >> np.arange(bits)[::-1] & 1).astype(np.uint8)
    packed = np.packbits(digits.reshape(len(samples), -1), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in packed)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("colours", [0, 3], ids=["grey", "palette"])
def test_few_bits_and_palettes_are_what_other_readers_see(
    exported_of_data, tmp_path, bits, colours, transparent
):
    """The numbers of the data are used here: an image's own would hide a factor."""
    random = np.random.default_rng(bits)
    samples = random.integers(0, 2**bits, (9, 21))
    palette = np.repeat(random.integers(0, 256, 2**bits), 3).astype(np.uint8).tobytes()
    between = [chunk(b"PLTE", palette)] if colours else []
    between += [chunk(b"tRNS", b"\x80\0"[: 2 - colours // 3])] if transparent else []
    path = tmp_path / "few.png"
    path.write_bytes(written_png(9, 21, bits, colours, *between, samples=samples))
    pixels = pixels_of(as_channels(read_planes(path, palette="colors")[0], 1, path), path)
    answer = exported_of_data("classify_bytes", image_bytes=[path.read_bytes()])
    probabilities = tf.io.parse_tensor(answer["probabilities_bytes"][0], tf.float32)
    np.testing.assert_allclose(probabilities, exported_of_data.expected(pixels), atol=1e-5)


@pytest.fixture(scope="module")
def exported_of_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("of_data") / "1"
    network = Architecture(depth=1, base_filters=2)
    return Exported(folder, network, tile=40, mode="dataset").write()


def stated_jpeg(height, width):
    """A JPEG of 9 x 9 pixels that states to be another size in its frame."""
    content = tf.io.encode_jpeg(np.zeros((9, 9, 1), np.uint8)).numpy()
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]


BOMBS = {
    "PNG": (written_png(50_000, 40_000, 8, 0), r"at most 67108864 pixels.*\[50000 40000\] pixels"),
    "PNG of 1 bit": (written_png(2**15, 2**15, 1, 0), r"at most 67108864 pixels.*32768 32768"),
    "PNG beyond numbers": (written_png(2**32 - 1, 5, 8, 0), r"at least one pixel.*\[-1 5\]"),
    "PNG of no pixel": (written_png(0, 5, 8, 0), r"at least one pixel.*\[0 5\]"),
    "header cut": (b"\x89PNG\r\n\x1a\n", r"at least one pixel.*\[0 0\]"),
    "JPEG": (stated_jpeg(65_000, 64_000), r"at most 67108864 pixels.*\[65000 64000\]"),
    "JPEG without a frame": (b"\xff\xd8\xff" + bytes(40), "Invalid JPEG"),
}


def test_what_a_file_states_is_checked_before_memory_is_taken(exported):
    """The largest bomb would take 16 GiB as float32."""
    exported.by_c_api(("classify_bytes", {"image_bytes": strings(WHOLE)}))
    needed = exported.mebibytes
    requests = [("classify_bytes", {"image_bytes": strings(bomb)}) for bomb, _ in BOMBS.values()]
    answers = exported.by_c_api(*requests)
    for (_, message), answer in zip(BOMBS.values(), answers, strict=True):
        assert isinstance(answer, str)
        assert re.search(message, answer, re.DOTALL), answer
    assert exported.mebibytes - needed < 64


def test_a_tile_that_does_not_fit(exported):
    """A tile that does not fit is refused when the graph is made, not when it is run."""
    with pytest.raises(ValueError, match=r"tile_size must be 2k and at least 18.*Received: 27"):
        GraphTiling.of(exported.run.architecture, 27)
