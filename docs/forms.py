"""Tables of the forms of files that are read, from the table by which the readers are tested."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[1] / "tests" / "data" / "forms.py"


def of_images() -> str:
    """Lists the forms of images, and what is read of each."""
    rows = [f"| {name} | {form.what} |" for name, form in _table().FORMS.items()]
    return "\n".join(["| form | read as |", "| --- | --- |", *rows])


def of_masks() -> str:
    """Lists the conventions of a mask of two values, all of which give the same pixels."""
    rows = [f"| {name} | `{ending}` |" for name, (_, ending) in _table().MASKS.items()]
    return "\n".join(["| mask | tested as |", "| --- | --- |", *rows])


@cache
def _table() -> Any:
    spec = importlib.util.spec_from_file_location("table_of_forms", TABLE)
    if spec is None or spec.loader is None:
        raise ImportError(f"{TABLE}: expected the table of forms. Received none there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
