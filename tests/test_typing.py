"""What the documents show passes a type checker, as a project that has this package installed."""

import re
from pathlib import Path

import pytest

from tests.programs import run_python

ROOT = Path(__file__).parents[1]
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
NAMESPACES = "pytorch_lightning", "lightning.pytorch"
# kept between runs, since to check torch takes more than a minute
CACHE = ROOT / ".mypy_cache" / "of_users"
# recipes leave out the types of their own functions, which must not hide what is wrong with ours
SHORT = "# mypy: allow-untyped-defs, allow-untyped-calls, allow-any-generics\n"
LISTS = 'Argument 1 to "DataLoader" has incompatible type "list['  # torch's takes them all the same
WRONG = """
from pytorch_lightning import Trainer
from lightning_nc import NeuralCollapse, NoSuchName, callbacks_for

Trainer(callbacks=callbacks_for("train"))
Trainer(callbacks=NeuralCollapse(every_n_epochs="two"))
figure, axes = NeuralCollapse().plot()
figure.no_such_method()
NeuralCollapse().no_such_attribute
"""


def recipes():
    """Each section of the recipes that has code, after the code at the top."""
    text = (ROOT / "docs" / "recipes.md").read_text()
    top, *sections = re.split(r"^##+ (?=.*\n)", text, flags=re.MULTILINE)
    with_code = filter(PYTHON.search, sections)
    return [SHORT + "".join(PYTHON.findall(top + section)) for section in with_code]


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """The errors that mypy finds in all programs together, by the name of the program."""
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("project")
    programs = {f"recipe_{n}": program for n, program in enumerate(recipes())}
    (programs["first"],) = PYTHON.findall((ROOT / "README.md").read_text())
    programs["wrong"] = WRONG
    for name, program in programs.items():
        for namespace in NAMESPACES:
            file = folder / f"{name}_{namespace.replace('.', '_')}.py"
            file.write_text(program.replace("pytorch_lightning", namespace))
    mypy = ["-m", "mypy", "--strict", "--config-file=", f"--cache-dir={CACHE}", "."]
    done = run_python(*mypy, cwd=folder, timeout=900)
    lines = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert f"(checked {2 * len(programs)} source files)" in done.stdout, done.stderr
    return {name: [line for line in lines if line.startswith(f"{name}_")] for name in programs}


@pytest.mark.slow
def test_programs_of_the_documents_pass_mypy_with_both_namespaces(errors):
    assert errors["first"] == []
    assert len(errors) > 15
    of_recipes = [line for name in errors if name.startswith("recipe") for line in errors[name]]
    assert [line for line in of_recipes if LISTS not in line] == []


@pytest.mark.slow
def test_mypy_finds_what_a_user_gets_wrong(errors):
    found = {tuple(line.split(":")[:2]) for line in errors["wrong"]}
    assert found == {
        (f"wrong_{namespace}.py", line)
        for namespace in ("pytorch_lightning", "lightning_pytorch")
        for line in ("3", "6", "8", "9")
    }
