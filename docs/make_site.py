"""Build the site of the documents: ``make docs``, into .artifacts/site.

Pages are those of docs/ and README.md, as they are; pages of quantities are made from the rows of
the measures, the reference from the public names, and the gallery from the examples.
"""

import ast
import importlib
import inspect
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from make_tables import CALLBACKS, keys_of, typeset
from papers import linked
from pytorch_lightning import Callback
from sphinx.cmd.build import build_main

import lightning_nc
from lightning_nc.measures.family import Family
from lightning_nc.measures.quantity import Quantity

ROOT = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("SITE_FOLDER", ROOT / ".artifacts"))
SOURCE, SITE = FOLDER / "site-source", FOLDER / "site"
ABOVE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
ABOVE |= {"SECURITY.md": "security.md", "CITATION.cff": "CITATION.cff"}
# pages of the reference: a title, and names in parts; None is for all names of the module
CALLBACKS_AND_MEASURE = {
    "Callbacks": "EquiSeparation NeuralCollapse MinorityCollapse LocalElasticity NextTokenLaw "
    "callbacks_for GeometrySummary",
    "Without a Trainer": "measure measure_checkpoints Measurement check",
    "Samples and layers": "Probe next_token find_blocks spatial_mean first_token last_token "
    "masked_mean",
}
OF_ONES_OWN = {
    "What a measure is": "Measure Quantity Curve Panel Evaluation MeasureCallback",
    "What a pass gives to it": "Request Statistic Answer GradientPass KernelRequest",
}
REFERENCE = {
    "lightning_nc": ("Callbacks, measure, Probe", CALLBACKS_AND_MEASURE),
    "metrics": ("lightning_nc.metrics", None),
    "functional": ("lightning_nc.functional", None),
    "theory": ("lightning_nc.theory", None),
    "own_measures": ("For measures of your own", OF_ONES_OWN),
}
PARTS = {
    "Guide": "recipes options seeing projects own_measures",
    "Quantities": "numbers keys papers",
    "Reference": "reference",
    "What is shown": "gallery reproductions theory guarantees benchmarks_cpu benchmarks",
    "Project": "contributing changelog security",
}


def gather() -> None:
    """Write the sources of the site into a folder of their own."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "figures", SOURCE / "figures")
    shutil.copytree(ROOT / "docs" / "_static", SOURCE / "_static")
    shutil.copy(ROOT / "CITATION.cff", SOURCE)
    (SOURCE / "examples").mkdir()
    for notebook in ROOT.glob("examples/*.ipynb"):
        shutil.copy(notebook, SOURCE / "examples")  # for download
    for page in ROOT.glob("docs/*.md"):
        write(page.name, in_site(page.read_text(encoding="utf-8")))
    for name, page in ABOVE.items():
        if page.endswith(".md"):
            write(page, in_site((ROOT / name).read_text(encoding="utf-8")))
    write("index.md", in_site((ROOT / "README.md").read_text(encoding="utf-8")) + contents())
    families = [Family.of(measure) for measure in CALLBACKS.values()]
    append("numbers.md", toctree("Each quantity", (f"quantities/{f.name}" for f in families)))
    append("reference.md", toctree("Public names", (f"api/{name}" for name in REFERENCE)))
    for name, family in zip(CALLBACKS, families, strict=True):
        write(f"quantities/{family.name}.rst", quantities(family, name))
    for name, (title, parts) in REFERENCE.items():
        write(f"api/{name}.rst", reference(title, parts))
    write("gallery.md", gallery())


def write(name: str, text: str) -> None:
    """Write a file of the sources."""
    path = SOURCE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def append(name: str, text: str) -> None:
    """Add to a file of the sources."""
    write(name, (SOURCE / name).read_text(encoding="utf-8") + text)


def in_site(text: str) -> str:
    """A page with its links as they are in the site, where all pages are in one folder."""
    text = re.sub(r"\]\((?:docs/|\.\./)", "](", text)
    for name, page in ABOVE.items():
        text = text.replace(f"]({name}", f"]({page}")
    # long names of examples may break after a part of them
    text = re.sub(r"\[(\w+)\]\(#\1\)", lambda m: f"[{broken(m[1])}](#{m[1]})", text)
    return text.replace("[results](results)", "`docs/results`")  # files that are not in the site


def broken(name: str) -> str:
    """A name in which a browser may begin a new line after each underscore."""
    return name.replace("_", "_&#8203;")


def contents() -> str:
    """The pages of the site, in their parts."""
    return "".join(toctree(part, pages.split()) for part, pages in PARTS.items())


def toctree(caption: str, pages: Iterator[str] | list[str]) -> str:
    """A table of contents in Markdown."""
    return f"\n```{{toctree}}\n:caption: {caption}\n:maxdepth: 1\n\n" + "\n".join(pages) + "\n```\n"


def heading(title: str, line: str = "=") -> str:
    """A heading in reStructuredText."""
    return f"{title}\n{line * len(title)}\n"


def quantities(family: Family, module: str) -> str:
    """The page of a family: every row with its formula, an example, its source, and the figure."""
    callback = importlib.import_module(f"lightning_nc.callbacks.{module}")
    (name,) = (each for each in lightning_nc.__all__ if defined(callback, each))
    first = next(iter(keys_of(family)))[0].replace("{p}", "train")
    example = f"    callback = {name}()\n    Trainer(callbacks=[callback]).fit(model, loader)\n"
    example += f'    callback.history.series("{first}")  # a number at each measurement\n'
    parts = [heading(family.title), family.question]
    parts += [f":py:obj:`lightning_nc.{name}` measures it::\n\n{example}"]
    parts += [f".. image:: ../figures/{figure_of(family)}\n   :alt: {family.title}\n"]
    told: set[str] = set()
    for key, row in keys_of(family):
        parts.append(quantity(key, row, repeated=row.function in told))
        told.add(row.function)
    return "\n\n".join(parts) + "\n"


def defined(module: ModuleType, name: str) -> bool:
    """Whether a module is where a name is defined."""
    return getattr(getattr(module, name, None), "__module__", None) == module.__name__


def figure_of(family: Family) -> str:
    """The figure that docs/numbers.md shows for a family."""
    numbers = (ROOT / "docs" / "numbers.md").read_text(encoding="utf-8")
    section = numbers.partition(f"\n## `{family.name}`")[2].partition("\n## ")[0]
    return re.findall(r"\(figures/([\w.]+)\)", section)[0]


def quantity(key: str, row: Quantity, repeated: bool) -> str:
    """The part of a page that is about one quantity; a formula that stands above is named."""
    title = typeset(row.label)
    if row.symbol and row.symbol not in row.label.split():
        title += f" ({typeset(row.symbol)})"
    if "{layer}" in key:
        title += ", at each layer"
    parts = [heading(title, "-"), f"``{key}``"]
    parts += [typeset(" ".join(filter(None, [row.meaning, row.caveat])))]
    said = {"Ideal": row.ideal, "When to worry": row.worry}
    said["Drawn in"] = f"{row.chart.panel.title}. {row.chart.panel.caption}" if row.chart else ""
    parts += ["\n".join(f":{name}: {typeset(text)}" for name, text in said.items() if text)]
    if row.function:
        end = ", as above." if repeated else ":"
        parts.append(f"Computed by :py:obj:`lightning_nc.{row.function}`{end}")
    if row.function and not repeated:
        parts.append(formula(row.function))
    return "\n\n".join(parts)


def formula(function: str) -> str:
    """Formula, example and source, from the docstring of a function."""
    module, name = function.split(".")
    found = getattr(importlib.import_module(f"lightning_nc.{module}"), name)
    text = inspect.getdoc(found) or ""
    said = text.partition("\n\n")[2].partition("Args:\n")[0].strip()
    parts = [re.sub(r"(?<!`)`([A-Z]\w+)`(?!`)", rf"`~lightning_nc.{module}.\1`", said)]
    for section in ("Example", "Source"):
        body = re.search(rf"^{section}:\n((?:    .*\n|\n)+)", text + "\n", re.MULTILINE)
        if body:
            lines = inspect.cleandoc(body[1])
            # lines of a session are a block of their own, also without a sentence before them
            parts.append(f"*{section}:*" + ("\n\n" if lines.startswith(">>>") else " ") + lines)
    return linked("\n\n".join(filter(None, parts)))


def reference(title: str, parts: dict[str, str] | None) -> str:
    """A page of the reference: names of the package in parts, or all names of the module."""
    module = lightning_nc if parts else importlib.import_module(title)
    path = module.__name__
    text = [heading(title), f".. py:currentmodule:: {path}"]
    if parts is OF_ONES_OWN:
        text.append(":doc:`../own_measures` shows how to write one.")
    else:
        text.append(inspect.getdoc(module) or "")
    for part, names in (parts or {"": " ".join(public(module))}).items():
        text += [heading(part, "-")] * bool(part)
        text += [described(path, getattr(module, each), each) for each in names.split()]
    return "\n\n".join(text) + "\n"


def described(path: str, found: Any, name: str) -> str:
    """The directive that shows the docstring of a public name."""
    if not inspect.isclass(found):
        return f".. autofunction:: {path}.{name}"
    left_out = [*getattr(found, "_fields", ())]  # of a tuple, which Attributes describe
    if issubclass(found, Callback):
        # hooks, which Lightning calls, and what our base class describes
        left_out += [n for base in found.__mro__[1:] for n in vars(base) if not n.startswith("_")]
    members = f"   :members:\n   :exclude-members: {', '.join(left_out)}"
    return f".. autoclass:: {path}.{name}\n{members}"


def public(module: ModuleType) -> list[str]:
    """The public names of a module, in its order."""
    names = [name for name, found in vars(module).items() if not inspect.ismodule(found)]
    return [name for name in names if not name.startswith("_")]


def gallery() -> str:
    """Every figure of an example, with what the example shows."""
    parts = [
        "# Gallery\n\nFigures that the examples make. A heading says what an example is about. "
        "[What is claimed and found](reproductions.md) says what came out: some claims fail."
    ]
    for figure in sorted(SOURCE.glob("figures/*.png")):
        example = ROOT / "examples" / f"{figure.stem}.py"
        if example.exists():
            doc = ast.get_docstring(ast.parse(example.read_text(encoding="utf-8"))) or ""
            title = " ".join(doc.partition("\n\n")[0].split())
            link = f"[`python examples/{example.name}`](reproductions.md#{figure.stem})"
            image = f"![{figure.stem}](figures/{figure.name})"
            parts.append(f"## {title.rstrip('.')}\n\n{link}\n\n{image}")
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Gather and build; a warning is an error."""
    gather()
    settings = ["-c", str(ROOT / "docs"), "-W", "--keep-going", "-q", "-E"]
    state = build_main(["-b", "html", *settings, str(SOURCE), str(SITE)])
    if not state:
        print(f"site: {SITE / 'index.html'}")
    return state


if __name__ == "__main__":
    sys.exit(main())
