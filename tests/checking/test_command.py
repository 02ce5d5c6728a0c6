"""The command, as users start it, in a project of their own."""

import re
import sys
from pathlib import Path

import pytest

from lightning_nc import __main__ as command
from lightning_nc.checking import check, sources
from tests import nets
from tests.programs import run_python

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

ROOT = Path(__file__).parents[2]
PROJECT = """
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

generator = torch.Generator().manual_seed(0)
data = TensorDataset(torch.randn(60, 4, generator=generator), torch.arange(3).repeat(20))
loader = DataLoader(data, 10)
net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
number, stages = 3, []


class Model(LightningModule):
    def __init__(self, width: int = 8):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.ReLU())
        self.classifier = nn.Linear(width, 3)

    def forward(self, x):
        return self.classifier(self.body(x))


class Needs(Model):
    def __init__(self, width):
        super().__init__(width)


class WithData(Model):
    def train_dataloader(self):
        return DataLoader(data, 5)


class Data(LightningDataModule):
    def __init__(self, batch_size: int = 10):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage):
        self.data = data
        stages.append(stage)

    def train_dataloader(self):
        return DataLoader(self.data, self.batch_size)

    def val_dataloader(self):
        return DataLoader(torch.utils.data.Subset(self.data, range(0, 60, 2)), self.batch_size)


def make_loader():
    return loader
"""
CONFIGURATION = """
seed_everything: 0
trainer: {max_epochs: 3}
model:
  class_path: project.train.Model
  init_args: {width: 12}
data:
  class_path: project.train.Data
  init_args: {batch_size: 6}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a project, which is the current one."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text(PROJECT)
    (tmp_path / "config.yaml").write_text(CONFIGURATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("project", "project.train"):
        sys.modules.pop(name, None)


def said(capsys, *arguments):
    """What the command prints, in this process."""
    command.main(["check", *arguments])
    return dict(re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "head", "layers"),
    [
        (["project.train:net", "project.train:loader"], "2", "2: input, 1"),
        (["project.train:net", "project.train:data"], "2", "2: input, 1"),
        (["project.train:Model", "project.train:make_loader"], "classifier", "2: input, body.1"),
        (["project.train:Model", "project.train:Data"], "classifier", "2: input, body.1"),
        (["project.train:WithData"], "classifier", "2: input, body.1"),
        (["--config", "config.yaml"], "classifier", "2: input, body.1"),
    ],
)
def test_each_way_to_name_network_and_data(arguments, head, layers, capsys):
    rows = said(capsys, *arguments)
    assert (rows["head"], rows["layers"]) == (head, layers)
    assert rows["classes"] == "3, with 20 samples each"
    assert rows["samples"] == "60 of 60"


@pytest.mark.usefixtures("project")
def test_arguments_of_a_configuration_are_used():
    (found,) = sources.from_configuration(Path("config.yaml"))
    assert (found.model.classifier.in_features, found.data.batch_size) == (12, 6)
    assert check(*found).widths["body.1"] == 12


@pytest.mark.usefixtures("project")
def test_a_configuration_that_lightning_cli_has_saved_is_read():
    # as with subclass_mode, and under the name of the subcommand
    text = "fit:\n" + "\n".join(f"  {line}" for line in CONFIGURATION.splitlines())
    Path("saved.yaml").write_text(text)
    (found,) = sources.from_configuration(Path("saved.yaml"))
    assert found.data.batch_size == 6


CALLBACKS = """
trainer:
  callbacks:
    - class_path: pytorch_lightning.callbacks.EarlyStopping
      init_args: {monitor: nc/val/nc1}
    - class_path: lightning_nc.NeuralCollapse
      init_args: {layers: [body.1]}
    - class_path: lightning_nc.callbacks.EquiSeparation
      init_args: {layers: [body.0, body.1], pool: lightning_nc.spatial_mean, probe: train}
    - class_path: lightning_nc.LocalElasticity
      init_args:
        probe: {class_path: lightning_nc.Probe, init_args: {source: val, samples_per_class: 4}}
"""


@pytest.mark.usefixtures("project")
def test_callbacks_of_a_configuration_are_checked_on_their_probes(capsys):
    text = CONFIGURATION.replace("trainer: {max_epochs: 3}", CALLBACKS)
    Path("callbacks.yaml").write_text(text)
    command.main(["check", "--config", "callbacks.yaml"])
    tables = [each.splitlines() for each in capsys.readouterr().out.split("\n\n")]
    assert [first for first, *_ in tables] == ["probe 'train'", "probe 'val'"]
    rows = [dict(re.split(r"  +", line, maxsplit=1) for line in lines) for _, *lines in tables]
    assert rows[0]["layers"] == "2: body.1, body.0"
    assert rows[0]["samples"] == "60 of 60"
    assert rows[0]["NeuralCollapse"] == rows[0]["EquiSeparation"] == "applies"
    assert rows[1]["samples"] == "12 of 30"
    assert rows[1]["LocalElasticity"].startswith("applies")
    assert {*rows[0]} & {"LocalElasticity", "MinorityCollapse", "EarlyStopping"} == set()
    assert {*rows[1]} & {"NeuralCollapse", "EquiSeparation"} == set()
    assert sys.modules["project.train"].stages == ["fit"]  # data are set up once


def test_the_command_in_a_process_of_its_own(project):
    command = ["-m", "lightning_nc", "check", "project.train:Model", "project.train:Data"]
    done = run_python(*command, cwd=project, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^head +classifier$", done.stdout, re.M)
    assert re.search("^MinorityCollapse +does not apply: .* no minority", done.stdout, re.M)
    assert sorted(path.name for path in project.iterdir()) == ["config.yaml", "project"]


def wrong_file(root):
    (root / "config.yaml").write_text("model: {init_args: {width: 3}}")
    return ["--config", "config.yaml"], "LightningCLI(MyModel)"


def wrong_argument(root):
    (root / "config.yaml").write_text(CONFIGURATION.replace("width", "depth"))
    return ["--config", "config.yaml"], "depth"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda root: (["project.train:number", "project.train:loader"], "type int, not a module"),
        lambda root: (["project.train:nothing", "project.train:loader"], "'nothing'"),
        lambda root: (["nowhere:net", "project.train:loader"], "No module named 'nowhere'"),
        lambda root: (["project.train", "project.train:loader"], "names no object"),
        lambda root: (["project.train:net"], "no train_dataloader()"),
        lambda root: (["project.train:Model"], "Model has no train_dataloader()"),
        lambda root: (["project.train:net", "project.train:number"], "source of a Probe must"),
        lambda root: (["--config", "none.yaml"], "configuration none.yaml cannot be read"),
        lambda root: (["project.train:Needs", "project.train:loader"], "'width'. Give the path of"),
        lambda root: ([], "give either"),
        wrong_file,
        wrong_argument,
    ],
)
def test_what_is_wrong_is_a_sentence_and_exit_status_2(wrong, project, capsys):
    arguments, sentence = wrong(project)
    with pytest.raises(SystemExit) as exit_:
        command.main(["check", *arguments])
    assert exit_.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "usage"),
    [
        (["check", "net", "--wrong"], "lightning_nc check [-h] [--config CONFIG]"),
        (["report", "folder", "--wrong"], "lightning_nc report [-h] [--output PAGE]"),
        (["demo", "--wrong"], "lightning_nc demo [-h] [--epochs EPOCHS]"),
        (["--wrong"], "lightning_nc [-h] [--epochs EPOCHS]"),
    ],
)
def test_with_an_unknown_option_the_usage_is_that_of_the_command(arguments, usage, capsys):
    with pytest.raises(SystemExit) as exit_:
        command.main(arguments)
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert usage in said
    assert "error: unrecognized arguments: --wrong" in said


@pytest.mark.usefixtures("project")
def test_without_jsonargparse_a_sentence_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    with pytest.raises(SystemExit):
        command.main(["check", "--config", "config.yaml"])
    assert "pip install 'jsonargparse[signatures]'" in capsys.readouterr().err


def test_the_console_script_is_the_same_program():
    (target,) = re.findall(r'^lightning-nc = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert target == f"{command.__name__}:{command.main.__name__}"
