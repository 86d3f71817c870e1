"""Forms of image and label files that people have, each drawn, with the right values.

`FORMS`, `MASKS` and `REFUSED` are the tables by which `test_forms.py` checks the readers and the
page "Supported files" is made (`docs/forms.py`): a form's name is a row of it.
"""

from .drawing import drawn, mask
from .images import FORMS
from .masks import MASKS
from .refused import REFUSED
from .zarrs import write_ome_zarr

__all__ = ["FORMS", "MASKS", "REFUSED", "drawn", "mask", "write_ome_zarr"]
