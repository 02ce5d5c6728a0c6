"""What the documents show passes type checkers, as a project that has this package installed."""

import json
import re
import sys
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
# torch's DataLoader takes lists, which its types do not say
LISTS = (
    'Argument 1 to "DataLoader" has incompatible type "list[',  # mypy
    'cannot be assigned to parameter "dataset" of type "Dataset[',  # pyright
)
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
def project(tmp_path_factory):
    """A folder with all programs, each in both namespaces."""
    folder = tmp_path_factory.mktemp("project")
    programs = {f"recipe_{n}": program for n, program in enumerate(recipes())}
    assert len(programs) > 13
    (programs["first"],) = PYTHON.findall((ROOT / "README.md").read_text())
    programs["wrong"] = WRONG
    for name, program in programs.items():
        for namespace in NAMESPACES:
            file = folder / f"{name}_{namespace.replace('.', '_')}.py"
            file.write_text(program.replace("pytorch_lightning", namespace))
    return folder


def found_by_mypy(folder):
    pytest.importorskip("mypy")
    mypy = ["-m", "mypy", "--strict", "--config-file=", f"--cache-dir={CACHE}", "."]
    done = run_python(*mypy, cwd=folder, timeout=900)
    assert f"(checked {len(list(folder.glob('*.py')))} source files)" in done.stdout, done.stderr
    errors = (line.split(": error: ") for line in done.stdout.splitlines() if ": error: " in line)
    return [(*place.split(":")[:2], message) for place, message in errors]


def found_by_pyright(folder):
    pytest.importorskip("pyright")
    # as it is in this environment, also where the package is not installed but beside the tests
    settings = {"extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    pyright = ["-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = run_python(*pyright, cwd=folder, timeout=900)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(list(folder.glob("*.py"))), done.stderr
    return [
        (Path(error["file"]).name, str(error["range"]["start"]["line"] + 1), error["message"])
        for error in report["generalDiagnostics"]
    ]


@pytest.fixture(scope="module", params=[found_by_mypy, found_by_pyright])
def errors(request, project):
    """The errors that a type checker finds: file, line and message of each."""
    return request.param(project)


@pytest.mark.slow
def test_programs_of_the_documents_pass_type_checkers_with_both_namespaces(errors):
    of_programs = [error for error in errors if not error[0].startswith("wrong_")]
    assert [error for error in of_programs if not any(part in error[2] for part in LISTS)] == []
    assert not any(file.startswith("first_") for file, *_ in of_programs)


@pytest.mark.slow
def test_type_checkers_find_what_a_user_gets_wrong(errors):
    found = {(file, line) for file, line, _ in errors if file.startswith("wrong_")}
    assert found == {
        (f"wrong_{namespace}.py", line)
        for namespace in ("pytorch_lightning", "lightning_pytorch")
        for line in ("3", "6", "8", "9")
    }
