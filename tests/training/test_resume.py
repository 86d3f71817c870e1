"""Whether a folder is free for a run."""

import pytest

from keras_unet.training.resume import check_unused


def test_a_file_of_another_program_with_the_name_of_a_record_is_safe(tmp_path):
    (tmp_path / "run.json").write_text('{"mine": 1}')
    with pytest.raises(FileExistsError, match=r"empty folder for the run. Received one with run"):
        check_unused(tmp_path)


def test_a_run_that_has_not_trained_anything_is_begun_anew(trained, tmp_path):
    (tmp_path / "run.json").write_bytes((trained / "run.json").read_bytes())
    check_unused(tmp_path)
    (tmp_path / "best.keras").touch()
    with pytest.raises(FileExistsError, match="one that holds a run"):
        check_unused(tmp_path)
