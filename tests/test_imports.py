"""Which part of the package may import which, and what importing it costs."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import lightning_nc

PACKAGE = Path(lightning_nc.__file__).parent

# for each room: the rooms it may import, and what else but the standard library
ROOMS = {
    "functional": ((), {"torch"}),
    "metrics": (("functional",), {"torch", "torchmetrics"}),
    "probe": ((), {"torch", "numpy", "lightning_fabric"}),
    "theory": ((), {"torch", "numpy", "cvxpy", "sklearn", "scipy"}),
    "figures": (("functional",), {"torch", "numpy", "matplotlib", "PIL"}),
    "report": (
        ("figures", "functional"),
        {"torch", "numpy", "matplotlib", "tensorboard"},
    ),
    "loggers": ((), {"numpy", "wandb"}),
    "callbacks": (
        ("probe", "metrics", "functional", "theory", "figures", "loggers"),
        {"torch", "lightning", "pytorch_lightning", "lightning_utilities", "tqdm"},
    ),
}
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
            allowed = bool(rest) and rest[0] in (*rooms, room)
        else:
            allowed = top in others or top in sys.stdlib_module_names
        if not allowed:
            wrong.append(name)
    return wrong


def rooms_and_files():
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room not in ("__init__", "__main__"):  # the public page, and the demo
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
        ("functional", "def f():\n    from lightning_nc.metrics import sweep"),
        ("metrics", "from lightning_nc import Probe"),
        ("probe", "import pytorch_lightning as pl"),
        ("probe", "from lightning_nc.callbacks.plan import Plan"),
        ("loggers", "import lightning_nc.figures"),
        ("figures", "import lightning_nc"),
        ("callbacks", "import matplotlib.pyplot as plt"),
    ],
)
def test_an_arrow_that_points_the_other_way_is_noticed(room, source):
    assert len(wrong_imports(room, source)) == 1


def test_what_is_optional_is_imported_where_it_is_used():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name == "__main__.py":
            continue  # the demo
        statements = ast.parse(path.read_text()).body
        at_import = [node for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]
        names = imported("\n".join(map(ast.unparse, at_import)))
        assert not {name.split(".")[0] for name in names} & set(HEAVY), path


def loaded_by(statement):
    """Which of the heavy modules are loaded after a statement, in a fresh interpreter."""
    script = f"{statement}\nimport sys\nprint([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return set(ast.literal_eval(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_more_than_lightning_does():
    by_lightning = loaded_by("import lightning.pytorch, pytorch_lightning, torchmetrics")
    assert loaded_by("import lightning_nc") <= by_lightning


def test_a_module_that_is_loaded_is_noticed():
    assert "matplotlib" in loaded_by("import matplotlib.figure")
