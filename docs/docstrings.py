"""Docstrings as Griffe reads them: its word for `Example:` is `Examples:`."""

from __future__ import annotations

import re
from typing import Any

import griffe

HEADING = re.compile(r"^( *)Example:$", re.MULTILINE)


class Examples(griffe.Extension):
    """Has examples shown as code, with what they print."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Looks at a module, class, function or attribute that has been loaded."""
        if obj.docstring is not None:
            obj.docstring.value = HEADING.sub(r"\1Examples:", obj.docstring.value)
