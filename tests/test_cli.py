"""Callbacks by LightningCLI: from the command line and from a configuration in YAML."""

import inspect
from pathlib import Path

import docstring_parser
import pytest
import torch
import yaml

import lightning_nc
from lightning_nc import MeasureCallback
from tests import nets
from tests.callbacks.scripts.cli import cli_of
from tests.programs import run_python

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "callbacks" / "scripts" / "cli.py"
ADD, OF_IT = "--trainer.callbacks+=lightning_nc.", "--trainer.callbacks."
QUIET = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
NAMES = ["EquiSeparation", "NeuralCollapse", "MinorityCollapse", "LocalElasticity"]

ON_THE_COMMAND_LINE = [
    *(ADD + "EquiSeparation", OF_IT + "every_n_epochs=2", OF_IT + "layers=[input,net.2,net.6]"),
    *(ADD + "NeuralCollapse", OF_IT + "every_n_epochs=2", OF_IT + "probe=val"),
    *(ADD + "MinorityCollapse", OF_IT + "every_n_epochs=2", OF_IT + "minority=[1,2]"),
    *(ADD + "LocalElasticity", OF_IT + "every_n_epochs=2", OF_IT + "samples_per_class=2"),
    OF_IT + "probe=lightning_nc.Probe",
    OF_IT + "probe.samples_per_class=7",
    OF_IT + "probe.name=few",
]
IN_YAML = """
- class_path: lightning_nc.EquiSeparation
  init_args:
    every_n_epochs: 2
    layers: [input, net.2, net.6]
- class_path: lightning_nc.NeuralCollapse
  init_args:
    every_n_epochs: 2
    probe: val
- class_path: lightning_nc.MinorityCollapse
  init_args:
    every_n_epochs: 2
    minority: [1, 2]
- class_path: lightning_nc.LocalElasticity
  init_args:
    every_n_epochs: 2
    samples_per_class: 2
    probe:
      class_path: lightning_nc.Probe
      init_args:
        samples_per_class: 7
        name: few
"""


def callbacks_of(namespace, *arguments):
    """The callbacks that arguments make, without a run."""
    quiet = ["--trainer.accelerator=cpu", "--trainer.logger=false"]
    cli = cli_of(namespace, [*quiet, *arguments], run=False, save_config_callback=None)
    return [each for each in cli.trainer.callbacks if isinstance(each, MeasureCallback)]


def configuration(folder, callbacks):
    path = folder / "callbacks.yaml"
    path.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    return f"--config={path}"


def states_after_fit(folder, namespace, arguments):
    """What the callbacks of a program in a process of its own have measured, by state key."""
    quiet = [f"--trainer.{key}={value}" for key, value in QUIET.items()]
    told = ["fit", f"--trainer.default_root_dir={folder}", "--trainer.max_epochs=3", *quiet]
    program = ["-W", "ignore", SCRIPT, namespace, *told, *arguments]
    done = run_python(*program, cwd=folder, timeout=180)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "states.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("namespace", "way"), list(zip(nets.NAMESPACES, ["command line", "YAML"], strict=True))
)
def test_a_program_on_lightning_cli_measures_with_all_callbacks(namespace, way, tmp_path):
    arguments = ON_THE_COMMAND_LINE
    if way == "YAML":
        arguments = [configuration(tmp_path, yaml.safe_load(IN_YAML))]
    states = states_after_fit(tmp_path, namespace, arguments)
    assert [key.split("{")[0] for key in states] == NAMES
    for state in states.values():
        assert [m.epochs_completed for m in nets.history_of(state)] == [0, 2, 3]
    _, collapse, _, elasticity = map(nets.history_of, states.values())
    assert "nc/val/nc1" in collapse[-1].values
    assert "elasticity/few/relative_ratio" in elasticity[-1].values
    (saved,) = tmp_path.rglob("config.yaml")  # as LightningCLI saves it, to be run again
    again = yaml.safe_load(saved.read_text())["trainer"]["callbacks"]
    assert [each["class_path"] for each in again] == [f"lightning_nc.{name}" for name in NAMES]


@pytest.mark.parametrize("namespace", nets.NAMESPACES)
def test_a_probe_can_be_given_in_each_way_of_the_command_line(namespace):
    ways = [
        [OF_IT + "probe.samples_per_class=7", OF_IT + "probe.batch_norm=batch"],
        [
            OF_IT + "probe=lightning_nc.Probe",
            OF_IT + "probe.samples_per_class=7",
            OF_IT + "probe.batch_norm=batch",
        ],
        [OF_IT + "probe={samples_per_class: 7, batch_norm: batch}"],
    ]
    for way in ways:
        (callback,) = callbacks_of(namespace, ADD + "NeuralCollapse", *way)
        assert callback.probe == lightning_nc.Probe(samples_per_class=7, batch_norm="batch"), way


@pytest.mark.parametrize("namespace", nets.NAMESPACES)
def test_data_and_functions_are_named_by_their_paths(namespace, tmp_path):
    probe = {
        "name": "mine",
        "source": {"class_path": "tests.nets.Blobs", "init_args": {"counts": [5, 4]}},
    }
    arguments = {"pool": "lightning_nc.masked_mean", "epochs": [0, 4], "probe": probe}
    entry = {"class_path": "lightning_nc.EquiSeparation", "init_args": arguments}
    (callback,) = callbacks_of(namespace, configuration(tmp_path, [entry]))
    assert callback.measure.pool is lightning_nc.masked_mean
    assert callback.schedule.epochs == (0, 4)
    assert callback.probe.source.targets.bincount().tolist() == [5, 4]


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        ("EquiSeparation", "layers={net.2: lightning_nc.masked_mean}", None),
        ("EquiSeparation", "layers=net.*", "net.*"),
        ("LocalElasticity", "parameters=last_layer", "last_layer"),
        ("LocalElasticity", "parameters=[net.0.*]", ["net.0.*"]),
        ("LocalElasticity", "outputs=3", 3),
        ("LocalElasticity", "outputs=all", "all"),
        ("LocalElasticity", "loss=torch.nn.functional.cross_entropy", None),
        ("MinorityCollapse", "class_counts=[3,4,5]", [3, 4, 5]),
        ("NeuralCollapse", "head=net.8", "net.8"),
    ],
)
def test_every_kind_of_argument_can_be_given_on_the_command_line(name, argument, value):
    (callback,) = callbacks_of("lightning", ADD + name, OF_IT + argument)
    kernel = callback.measure.kernel._asdict() if name == "LocalElasticity" else {}
    taken = vars(callback.measure) | kernel
    key = argument.split("=")[0]
    expected = {
        "layers": {"net.2": lightning_nc.masked_mean},
        "loss": torch.nn.functional.cross_entropy,
    }
    assert taken[key] == (expected[key] if value is None else value)


@pytest.mark.parametrize("namespace", nets.NAMESPACES)
def test_an_argument_that_is_wrong_is_named(namespace, capsys):
    with pytest.raises(SystemExit):
        callbacks_of(namespace, ADD + "NeuralCollapse", OF_IT + "every_n_epoch=2")
    assert "every_n_epoch" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_help_describes_every_argument(name, capsys):
    with pytest.raises(SystemExit):
        callbacks_of("lightning", f"--trainer.callbacks.help=lightning_nc.{name}")
    shown = "".join(capsys.readouterr().out.split())  # lines are broken at hyphens, too
    kind = getattr(lightning_nc, name)
    described = {
        each.arg_name: each.description for each in docstring_parser.parse(kind.__doc__).params
    }
    assert set(described) == set(inspect.signature(kind).parameters)
    for argument, description in described.items():
        assert f"[--trainer.callbacks.{argument}" in shown
        assert "".join(description.split()) in shown
