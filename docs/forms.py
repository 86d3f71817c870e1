"""Tables of supported files, from the test cases of the readers."""

from __future__ import annotations

import importlib.util
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[1] / "tests" / "data" / "forms" / "__init__.py"


def of_images() -> str:
    """Lists image formats: the tool that writes each in its test, and what is read."""
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, form in _table().FORMS.items():
        alike[form.by, form.what].append(name)
    rows = [(by, "; ".join(names), what) for (by, what), names in alike.items()]
    return _rows(("written by", "formats", "read as"), rows)


def of_masks() -> str:
    """Lists the encodings of a binary mask that are read alike."""
    masks = _table().MASKS.items()
    return _rows(("mask", "tested as"), [(name, f"`{one.ending}`") for name, one in masks])


def of_refused() -> str:
    """Lists the files that are rejected."""
    refused = _table().REFUSED.items()
    return _rows(("file", "tested as"), [(name, f"`{one.ending}`") for name, one in refused])


def _rows(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("*a*b*", r"\*a\*b\*") for line in lines)


@cache
def _table() -> Any:
    spec = importlib.util.spec_from_file_location("table_of_forms", TABLE)
    if spec is None or spec.loader is None:
        raise ImportError(f"{TABLE}: expected the table of forms. Received none there")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # needed for imports within the package
    spec.loader.exec_module(module)
    return module
