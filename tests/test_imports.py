"""Which part of the package may import which, and what importing it costs."""

import ast
import sys
import textwrap
from pathlib import Path

import pytest

import lightning_nc
from tests.programs import run_python

PACKAGE = Path(lightning_nc.__file__).parent

# for each room: the rooms it may import besides `wording`, and what else but the standard library
ROOMS = {
    "wording": ((), set()),
    "globs": ((), set()),
    "arguments": ((), set()),
    "guards": ((), {"torch", "numpy"}),
    "tangent": (("guards", "globs"), {"torch"}),
    "functional": (("tangent",), {"torch"}),
    "network": (("guards", "globs"), {"torch", "numpy", "lightning_utilities"}),
    "passes": (("arguments", "network", "guards", "functional", "tangent"), {"torch"}),
    "theory": (("arguments",), {"torch", "numpy", "cvxpy", "sklearn", "scipy"}),
    "figures": (("functional",), {"torch", "numpy", "matplotlib", "PIL"}),
    "measures": (
        ("arguments", "passes", "network", "functional", "theory", "figures"),
        {"torch", "numpy", "pandas", "tqdm"},
    ),
    "loggers": (("figures",), {"numpy", "wandb", "matplotlib", "PIL"}),
    "callbacks": (
        (
            *("arguments", "measures", "passes", "network", "guards", "functional"),
            *("figures", "loggers"),
        ),
        {"torch", "lightning", "pytorch_lightning", "lightning_utilities", "tqdm", "yaml"},
    ),
    "checking": (
        ("arguments", "callbacks", "measures", "passes", "network", "functional"),
        {"torch", "jsonargparse", "yaml"},
    ),
    "commands": (("checking", "demo", "integrations", "report"), set()),
    "demo": (("callbacks",), {"torch", "pytorch_lightning", "sklearn"}),
    "factory": (("callbacks",), set()),
    "integrations": (
        ("callbacks", "measures", "passes", "network", "guards"),
        {"torch", "transformers", "wandb_workspaces"},
    ),
    "metrics": (
        ("arguments", "measures", "passes", "guards", "functional"),
        {"torch", "torchmetrics", "matplotlib"},
    ),
    "report": (
        ("measures", "figures"),
        {"torch", "numpy", "matplotlib", "jinja2", "tensorboard", "google"},  # protobuf
    ),
}
LIGHTNING = ["lightning.pytorch", "pytorch_lightning", "torchmetrics"]
HEAVY = ["matplotlib", "tensorboard", "wandb", "sklearn", "cvxpy", "transformers", "pandas"]


def imported(source):
    """All modules that a source imports, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "lightning_nc":
                yield from (f"lightning_nc.{alias.name}" for alias in node.names)
            else:
                yield node.module


def wrong_imports(room, source):
    """The imports of a source that its room does not allow."""
    rooms, others = ROOMS[room]
    wrong = []
    for name in imported(source):
        top, *rest = name.split(".")
        if top == "lightning_nc":
            allowed = bool(rest) and rest[0] in (*rooms, room, "wording")
        else:
            allowed = top in others or top in sys.stdlib_module_names
        if not allowed:
            wrong.append(name)
    return wrong


def rooms_and_files():
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room not in ("__init__", "__main__"):  # the public page, and the command line
            yield room, path


@pytest.mark.parametrize(
    ("room", "path"), [pytest.param(*each, id=str(each[1].name)) for each in rooms_and_files()]
)
def test_arrows_point_one_way(room, path):
    assert wrong_imports(room, path.read_text()) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("functional", "import numpy"),
        ("functional", "def f():\n    from lightning_nc.metrics import pooled"),
        ("metrics", "from lightning_nc import Probe"),
        ("passes", "import pytorch_lightning as pl"),
        ("network", "from lightning_nc.passes.plan import Plan"),
        ("measures", "from lightning_nc.callbacks import EquiSeparation"),
        ("loggers", "import lightning_nc.measures"),
        ("figures", "import lightning_nc"),
        ("callbacks", "import matplotlib.pyplot as plt"),
    ],
)
def test_an_arrow_that_points_the_other_way_is_noticed(room, source):
    assert len(wrong_imports(room, source)) == 1


def modules():
    """All modules of the package by name, with their source; a package has that of its page."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path.read_text()


def arrows(sources):
    """Which modules of the package each one imports, anywhere in it."""
    found = {}
    for name, source in sources.items():
        wanted = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
                wanted |= {max((n for n in names if n in sources), key=len, default="")}
            elif isinstance(node, ast.Import):
                wanted |= {each.name for each in node.names}
        found[name] = {each for each in wanted if each in sources and each != name}
    return found


def in_circles(graph):
    """The modules from which arrows lead back to themselves."""

    def reached_from(name):
        seen, waiting = set(), list(graph[name])
        while waiting:
            each = waiting.pop()
            if each not in seen:
                seen.add(each)
                waiting += graph[each]
        return seen

    return sorted(name for name in graph if name in reached_from(name))


def test_no_arrows_run_in_a_circle():
    # the pages of packages gather what is in them; what is in them must not import the page
    assert in_circles(arrows(dict(modules()) | {"lightning_nc": ""})) == []


def test_a_circle_is_noticed():
    sources = {
        "a": "def f():\n    from b import g",
        "b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from c import T",
        "c": "import a",
        "d": "import a",
    }
    assert in_circles(arrows(sources)) == ["a", "b", "c"]


def test_the_formulas_load_no_lightning():
    for statement in ("import lightning_nc.functional", "from lightning_nc import functional"):
        assert loaded_by(statement, LIGHTNING) == set()
    with_callbacks = loaded_by("import lightning_nc.callbacks", LIGHTNING)
    assert with_callbacks == {"pytorch_lightning", "torchmetrics"}


def test_what_is_optional_is_imported_where_it_is_used():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name in ("hf.py", "layout.py"):
            continue  # classes derived from those of Transformers and matplotlib
        statements = ast.parse(path.read_text()).body
        at_import = [node for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]
        names = imported("\n".join(map(ast.unparse, at_import)))
        assert not {name.split(".")[0] for name in names} & set(HEAVY), path


def loaded_by(statement, modules=HEAVY):
    """Which of some modules are loaded after a statement, in a fresh interpreter."""
    script = f"{statement}\nimport sys\nprint([m for m in {modules} if m in sys.modules])"
    done = run_python("-c", textwrap.dedent(script))
    done.check_returncode()
    return set(ast.literal_eval(done.stdout.splitlines()[-1]))


def test_the_command_line_imports_what_a_command_needs_when_it_runs():
    modules = ["torch", "pytorch_lightning", *HEAVY]
    assert loaded_by("import lightning_nc.__main__", modules) == set()


def test_importing_the_package_loads_nothing_more_than_lightning_does():
    by_lightning = loaded_by("import lightning.pytorch, pytorch_lightning, torchmetrics")
    assert loaded_by("import lightning_nc.callbacks") <= by_lightning


def test_a_module_that_is_loaded_is_noticed():
    assert "matplotlib" in loaded_by("import matplotlib.figure")
