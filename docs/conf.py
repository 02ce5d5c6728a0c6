"""Settings of Sphinx; `make_site.py` gathers the pages and builds them."""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from papers import linked
from sphinx.application import Sphinx

project = "lightning_nc"
author = "The lightning_nc developers"
copyright = author
html_theme = "furo"
html_title = "lightning_nc"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"top_of_page_buttons": []}  # there is no known address of the sources
html_show_sourcelink = False
templates_path: list[str] = []

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
default_role = "py:obj"  # docstrings name objects of the package in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # types and shapes are described under Args
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Source", ("Shape", "notes_style")]
maximum_signature_line_length = 88
copybutton_prompt_text = ">>> "


def setup(app: Sphinx) -> None:
    """Render formulas as MathML, which browsers show without a script, and link papers."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.config.html_math_renderer = "mathml"
    app.connect("autodoc-process-docstring", _link_papers, priority=100)


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def _link_papers(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list) -> None:
    """Link the titles of papers; the lines are changed in place, as Sphinx wants it."""
    lines[:] = re.split("\n", linked("\n".join(lines)))
