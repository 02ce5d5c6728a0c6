import sys
from pathlib import Path

import pytest

from lightning_nc import __main__ as command
from lightning_nc import demo
from lightning_nc.report.page import report_page
from lightning_nc.report.runs import read_runs
from tests import nets

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


@pytest.mark.usefixtures("without_pictures")
def test_the_command_writes_one_page(run, tmp_path, capsys):
    page = tmp_path / "page.html"
    command.main(["report", str(run[0]), "--output", str(page)])
    assert page.read_text(encoding="utf-8") == report_page(*read_runs(run[0]))
    assert capsys.readouterr().out.startswith(f"wrote {page}: ")
    assert list(tmp_path.iterdir()) == [page]


def empty(root):
    return root, "neither event files"


def absent(root):
    return root / "nowhere", "does not exist"


def file(root):
    (root / "metrics.csv").write_text("step,loss\n0,1.0\n")
    return root / "metrics.csv", "is a file"


def of_others(root):
    (root / "metrics.csv").write_text("step,loss\n0,1.0\n")
    return root, "only loss, step"


@pytest.mark.parametrize("wrong", [empty, absent, file, of_others])
def test_a_wrong_folder_is_a_sentence_and_exit_status_2(wrong, tmp_path, capsys):
    folder, sentence = wrong(tmp_path)
    page = tmp_path / "page.html"
    with pytest.raises(SystemExit) as exit_:
        command.main(["report", str(folder), "--output", str(page)])
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert str(folder) in said
    assert "give the " in said
    assert not page.exists()


@pytest.mark.parametrize("module", ["matplotlib", "matplotlib.figure", "jinja2"])
def test_what_is_missing_is_named_with_what_to_install(module, run, tmp_path, capsys, monkeypatch):
    package = module.partition(".")[0]
    for name in [name for name in sys.modules if name.startswith(package)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # which makes its import fail
    page = tmp_path / "page.html"
    with pytest.raises(SystemExit) as exit_:
        command.main(["report", str(run[0]), "--output", str(page)])
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"The report needs {package}")
    assert said.endswith("Run pip install 'lightning-neural-collapse[plot]'.\n")
    assert not page.exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (40, Path("lightning_logs"))),
        (["--epochs", "4", "--output", "X"], (4, Path("X"))),
        (["demo", "--epochs", "4", "--output", "X"], (4, Path("X"))),
        (["--epochs", "4", "demo"], (4, Path("lightning_logs"))),
    ],
)
def test_without_a_command_or_with_demo_the_demo_runs(arguments, expected, monkeypatch):
    given = []
    monkeypatch.setattr(demo, "run_demo", lambda *options: given.append(options))
    command.main(arguments)
    assert given == [expected]


def test_an_unknown_command_is_told_with_those_that_there_are(capsys):
    with pytest.raises(SystemExit):
        command.main(["rapport"])
    assert "argument COMMAND: invalid choice: 'rapport'" in capsys.readouterr().err
