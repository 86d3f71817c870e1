"""Generated files of the site: pages from other folders, figures, results, tables, the network.

MkDocs calls these functions (`hooks` in mkdocs.yml). No file is written to the source folders.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import commands
import figures
import forms
from mkdocs.structure.files import File

from keras_unet.architecture import Architecture
from keras_unet.report.charts import network_svg

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = {  # path in the repository: path in the site
    "CHANGELOG.md": "project/CHANGELOG.md",
    "CONTRIBUTING.md": "project/CONTRIBUTING.md",
    "SECURITY.md": "project/SECURITY.md",
    "benchmarks/NOTES.md": "speed.md",
    "export/README.md": "how-to/export.md",
}
NETWORK = re.compile(r'<div class="network-of" data-depth="(\d)" data-tile="(\d+)"></div>')

drawn = cache(figures.draw)  # once, however often `mkdocs serve` builds


def on_files(files: Any, config: Any) -> Any:
    """Adds PAGES, `figures/NAME-THEME.png` and the files of `benchmarks/results/`."""
    for source, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    for name in figures.FIGURES:
        for theme in figures.INKS:
            uri = f"figures/{name}-{theme}.png"
            files.append(File.generated(config, uri, content=drawn(name, theme)))
    for path in sorted(RESULTS.rglob("*.*")):
        uri = f"results/{path.relative_to(RESULTS).as_posix()}"
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces placeholders by the command reference and the tables of supported files."""
    described = markdown.replace("{{ commands }}", commands.reference())
    tables = {"forms": forms.of_images, "masks": forms.of_masks, "refused": forms.of_refused}
    for name, table in tables.items():
        described = described.replace(f"{{{{ {name} }}}}", table())
    return described


def on_page_content(html: str, **_: Any) -> str:
    """Replaces placeholders by drawings of the network."""
    return NETWORK.sub(
        lambda found: network_svg(Architecture(depth=int(found[1])), int(found[2])), html
    )
