"""Docstrings for Griffe, which expects `Examples:` instead of `Example:`."""

from __future__ import annotations

import re
from typing import Any

import griffe

HEADING = re.compile(r"^( *)Example:$", re.MULTILINE)


class Examples(griffe.Extension):
    """Griffe extension that renders examples as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Edits the docstring of a loaded object."""
        if obj.docstring is not None:
            obj.docstring.value = HEADING.sub(r"\1Examples:", obj.docstring.value)
