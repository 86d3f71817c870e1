import numpy as np
import pytest
import tifffile

from keras_unet.data.images import write_tiff
from keras_unet.evaluation import pairing
from keras_unet.evaluation.pairing import pair_files


def find_label_images(folder):
    return pairing.find_label_images(folder).files


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.zeros((2, 2), np.uint8))
    return folder


def paired(labels, predictions):
    """Labels and predictions that go together, as names."""
    found = pair_files(find_label_images(labels), predictions)
    return {one.reference.labels.name: one.result.name for one in found}


@pytest.mark.parametrize("inner", ["", "labels", "masks"])
def test_by_stem(tmp_path, inner):
    write(tmp_path / "data" / inner, "b.tif", "a.ome.tif", "c.tif")
    predictions = write(tmp_path / "predictions", "a.tif", "b.tif", "d.tif")
    assert paired(tmp_path / "data", predictions) == {"a.ome.tif": "a.tif", "b.tif": "b.tif"}


@pytest.mark.parametrize("inner", ["", "Mask", "gt"])
def test_labels_with_an_affix(tmp_path, inner):
    write(tmp_path / "data" / inner, "a_mask.tif", "b_cp_masks.tif", "c_mask.tif", "d.tif")
    predictions = write(tmp_path / "predictions", "a.tif", "b_img.tif", "c_mask.tif", "c.tif")
    assert paired(tmp_path / "data", predictions) == {
        "a_mask.tif": "a.tif",
        "b_cp_masks.tif": "b_img.tif",
        "c_mask.tif": "c_mask.tif",
    }


def test_outputs_that_serve_as_labels_are_not_labels_of_each_other(tmp_path):
    labels = tmp_path / "labels"
    labels.mkdir()
    for name in ("a.tif", "a_instances.tif"):
        write_tiff(labels / name, np.zeros((2, 2), np.uint8), axes="YX")
    assert paired(labels, write(tmp_path / "predictions", "a.tif")) == {"a.tif": "a.tif"}
    (left_out,) = pairing.find_label_images(labels).left_out
    assert str(left_out) == "a_instances.tif (an output that belongs to a.tif)"


def test_a_prediction_with_an_affix_is_taken_once(tmp_path):
    labels = write(tmp_path / "labels", "img_a.tif", "a.tif", "c.tif")
    predictions = write(tmp_path / "predictions", "img_a.tif", "c_img.tif")
    assert paired(labels, predictions) == {"img_a.tif": "img_a.tif", "c.tif": "c_img.tif"}


@pytest.mark.parametrize(
    ("labels", "predictions"), [(["b"], ["b_img", "img_b"]), (["b_mask", "b_seg"], ["b"])]
)
def test_equal_claims_are_refused(tmp_path, labels, predictions):
    references = write(tmp_path / "labels", *(f"{name}.tif" for name in labels))
    results = write(tmp_path / "predictions", *(f"{name}.tif" for name in predictions))
    with pytest.raises(ValueError, match="expected one label file for one image, received "):
        paired(references, results)


def test_two_predictions_of_one_frame_are_refused(tmp_path):
    labels = write(tmp_path / "01_GT" / "SEG", "man_seg007.tif")
    predictions = write(tmp_path / "predictions", "t007.tif", "mask007.tif")
    with pytest.raises(ValueError, match=r"man_seg007\.tif: expected one prediction of this frame"):
        paired(labels, predictions)


@pytest.mark.parametrize("kind", ["mask", "instances"])
def test_labels_beside_their_images(tmp_path, kind):
    names = ("a.tif", f"a_{kind}.tif", "img_b.tif", f"{kind}_b.tif", "c.tif", f"d_{kind}.tif")
    data = write(tmp_path / "data", *names)
    predictions = write(tmp_path / "predictions", "a.tif", "img_b.tif", "c.tif", "d.tif")
    assert paired(data, predictions) == {
        f"a_{kind}.tif": "a.tif",
        f"{kind}_b.tif": "img_b.tif",
        f"d_{kind}.tif": "d.tif",
    }
    assert [str(one) for one in pairing.find_label_images(data).left_out] == [
        f"a.tif (the image of a_{kind}.tif)",
        "c.tif (its name is not that of a label file)",
        f"img_b.tif (the image of {kind}_b.tif)",
    ]


def test_names_that_differ_in_case_alone_go_together(tmp_path):
    labels = write(tmp_path / "labels", "A.tif", "b_Mask.tif", "c.tif", "C.tif")
    predictions = write(tmp_path / "predictions", "a.tif", "B.tif", "C.tif")
    assert paired(labels, predictions) == {
        "A.tif": "a.tif",
        "b_Mask.tif": "B.tif",
        "C.tif": "C.tif",
    }
    frames = write(tmp_path / "01_GT" / "SEG", "man_seg007.tif")
    assert paired(frames, write(tmp_path / "frames", "T007.tif")) == {"man_seg007.tif": "T007.tif"}


def test_the_labels_folder_of_a_data_set_goes_by_the_rules_of_training(tmp_path):
    write(tmp_path / "data" / "labels", "a.tif", "a_mask.tif", "b_seg.tif")
    predictions = write(tmp_path / "predictions", "a.tif", "b.tif")
    assert paired(tmp_path / "data", predictions) == {"a.tif": "a.tif", "b_seg.tif": "b.tif"}


def test_an_output_of_another_image_is_no_prediction(tmp_path):
    labels = write(tmp_path / "labels", "a.tif", "a_classes.tif", "b_instances.tif")
    predictions = write(
        tmp_path / "predictions", "a.tif", "a_classes.tif", "a_probabilities.tif", "b_instances.tif"
    )
    assert paired(labels, predictions) == {
        "a.tif": "a.tif",
        "b_instances.tif": "b_instances.tif",  # there is no b.tif that it could belong to
    }


def test_probabilities_are_found_beside_the_prediction(tmp_path):
    labels = write(tmp_path / "labels", "a.tif", "b.tif")
    predictions = write(tmp_path / "predictions", "a.tif", "a_probabilities.tif", "b.tif")
    found = pair_files(find_label_images(labels), predictions)
    assert [one.probabilities for one in found] == [predictions / "a_probabilities.tif", None]


@pytest.mark.parametrize("labels", ["01_GT/SEG", "01_GT", "."])
@pytest.mark.parametrize("name", ["t0012.tif", "01_t0012.tif", "mask0012.tif", "man_seg0012.tif"])
def test_frames_of_the_cell_tracking_challenge(tmp_path, labels, name):
    write(tmp_path / "data" / "01_GT" / "SEG", "man_seg012.tif", "man_seg112.tif")
    predictions = write(tmp_path / "predictions", "t002.tif", name)
    assert paired(tmp_path / "data" / labels, predictions) == {"man_seg012.tif": name}


def test_several_sequences_need_their_names(tmp_path):
    for sequence in ("01", "02"):
        write(tmp_path / "data" / f"{sequence}_GT" / "SEG", "man_seg000.tif")
    references = find_label_images(tmp_path / "data")
    assert [one.name for one in references] == ["01_man_seg000", "02_man_seg000"]
    predictions = write(tmp_path / "predictions", "t000.tif", "02_t000.tif")
    (found,) = pair_files(references, predictions)
    assert (found.reference.name, found.result.name) == ("02_man_seg000", "02_t000.tif")


def test_a_plane_of_a_stack(tmp_path):
    labels = write(tmp_path / "01_GT" / "SEG", "man_seg_007_003.tif")
    (found,) = pair_files(find_label_images(labels), write(tmp_path / "predictions", "t007.tif"))
    assert (found.result.name, found.reference.plane) == ("t007.tif", 3)


def test_one_name_twice_is_refused(tmp_path):
    labels = write(tmp_path / "labels", "a.tif", "a.tiff")
    with pytest.raises(ValueError, match=r"differ without ending, received a\.tif and a\.tiff"):
        find_label_images(labels)
    one = write(tmp_path / "one", "a.tif")
    with pytest.raises(ValueError, match=r"differ without ending, received a\.tif and a\.tiff"):
        pair_files(find_label_images(one), labels)


def test_what_is_missing_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    labels = write(tmp_path / "labels", "a.tif")
    with pytest.raises(FileNotFoundError, match="nowhere: expected a folder of label images"):
        find_label_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"empty: expected a folder of label images.*without any"):
        find_label_images(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="nowhere: expected a folder of predictions"):
        pair_files(find_label_images(labels), tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"example a\.tif for .*labels/a\.tif\. Received no image"):
        pair_files(find_label_images(labels), tmp_path / "empty")
