"""Callbacks that every Trainer gets if an environment variable names their file."""

import json
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

import lightning_nc
from lightning_nc import GeometrySummary, MeasureCallback, NeuralCollapse, factory
from lightning_nc.callbacks import from_file
from lightning_nc.callbacks.yaml_list import callbacks_of
from lightning_nc.passes.meeting import MeetingPlace
from tests import nets
from tests.callbacks.records import csv_rows
from tests.callbacks.scripts.start import run_script, warnings_of

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

ALL = """
- class_path: lightning_nc.EquiSeparation
  init_args: {layers: [input, net.2, net.6], figures: false}
- class_path: NeuralCollapse
  init_args: {figures: false, probe: {samples_per_class: 8}}
- class_path: MinorityCollapse
  init_args: {minority: [1, 2], figures: false}
- class_path: LocalElasticity
  init_args: {samples_per_class: 2, figures: false}
"""
EVERY_EPOCH = "[{class_path: NeuralCollapse, init_args: {figures: false}}]"
REFUSED_AND_NOT = """
- {class_path: tests.test_factory.Refusing, init_args: {probe: val}}
- {class_path: NeuralCollapse, init_args: {figures: false}}
"""
WITHOUT_IT = """
import json, sys
import lightning.pytorch
lightning.pytorch.Trainer(logger=False, enable_checkpointing=False)
alone = "pytorch_lightning" not in sys.modules
import pytorch_lightning
pytorch_lightning.Trainer(logger=False, enable_checkpointing=False)
print(json.dumps([alone, [m for m in sys.modules if m.startswith("lightning_nc")]]))
"""


class Refusing(NeuralCollapse):
    """A callback that cannot be set up."""

    def setup(self, trainer, pl_module, stage):
        raise ValueError("it cannot measure here")


class Configured(nets.Classifier):
    """A module that brings a callback of its own."""

    def configure_callbacks(self):
        return [NeuralCollapse(every_n_epochs=2, figures=False)]


@pytest.fixture
def asked_for(tmp_path, monkeypatch):
    """Name a file with this text by the environment variable."""

    def ask(text):
        path = tmp_path / "callbacks.yaml"
        path.write_text(text)
        monkeypatch.setenv(factory.VARIABLE, str(path))
        return path

    return ask


def ours(trainer):
    return [c for c in trainer.callbacks if isinstance(c, MeasureCallback)]


def epochs(callback):
    return [m.epochs_completed for m in callback.history if m.stage == "fit"]


def fit_and_what_it_told(*arguments, **options):
    with nets.our_warnings() as told:
        run = nets.fit(*arguments, **options)
    return run, told


def test_without_the_variable_a_trainer_loads_nothing_but_the_factory():
    environment = {k: v for k, v in os.environ.items() if k != factory.VARIABLE}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_IT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [
        True,
        ["lightning_nc", "lightning_nc.factory"],
    ]


@pytest.mark.parametrize("namespace", nets.NAMESPACES)
def test_every_callback_of_the_file_measures_for_a_trainer_of_either_namespace(
    namespace, asked_for, tmp_path
):
    asked_for(ALL)
    run = nets.trainer(tmp_path, namespace=namespace)
    module = {"lightning": nets.UnifiedClassifier}.get(namespace, nets.Classifier)()
    run.fit(module, DataLoader(nets.vectors(), 10))
    assert [type(c).__name__ for c in ours(run)] == [
        "EquiSeparation",
        "NeuralCollapse",
        "MinorityCollapse",
        "LocalElasticity",
    ]
    assert all(epochs(callback) == [0, 1, 2] for callback in ours(run))
    assert {"separation/train/rho", "nc/train/nc1"} <= set(run.callback_metrics)
    assert ours(run)[1].history[0].counts.tolist() == [8, 8, 8]


@pytest.mark.parametrize("namespace", nets.NAMESPACES)
def test_training_is_bit_identical_with_callbacks_of_a_file(
    namespace, asked_for, tmp_path, monkeypatch
):
    asked_for(ALL)
    measured = nets.train_and_trace(tmp_path, namespace=namespace)
    monkeypatch.delenv(factory.VARIABLE)
    assert nets.difference(measured, nets.train_and_trace(tmp_path, namespace=namespace)) is None


def test_a_summary_can_be_asked_for_and_is_printed_once(asked_for, tmp_path, capsys):
    asked_for(f"[{{class_path: GeometrySummary}}, {EVERY_EPOCH[1:-1]}]")
    run = nets.fit(tmp_path)
    assert capsys.readouterr().out.count("NeuralCollapse on 'train'") == 1
    run.fit_loop.max_epochs = 3
    run.fit(run.lightning_module, DataLoader(nets.vectors(), 10))
    assert capsys.readouterr().out.count("NeuralCollapse on 'train'") == 1
    nets.fit(tmp_path, [GeometrySummary()])
    assert capsys.readouterr().out.count("NeuralCollapse on 'train'") == 1


def test_a_callback_of_the_program_holds_against_one_of_the_file(asked_for, tmp_path):
    asked_for(EVERY_EPOCH)
    own = NeuralCollapse(every_n_epochs=2, figures=False)
    run = nets.fit(tmp_path, [own], max_epochs=3)
    assert ours(run) == [own]
    assert epochs(own) == [0, 2, 3]


def test_a_callback_of_the_module_holds_against_one_of_the_file(asked_for, tmp_path):
    asked_for(EVERY_EPOCH)
    run = nets.trainer(tmp_path, max_epochs=3)
    for completed in (3, 6):  # the second fit with what the first has left in the Trainer
        run.fit_loop.max_epochs = completed
        run.fit(Configured(), DataLoader(nets.vectors(), 10))
        assert [callback.schedule.every_n_epochs for callback in ours(run)] == [2]


def test_a_callback_that_the_program_adds_between_fits_holds(asked_for, tmp_path):
    asked_for(EVERY_EPOCH)
    run = nets.fit(tmp_path)
    own = NeuralCollapse(every_n_epochs=2, figures=False)
    run.callbacks.append(own)
    run.fit_loop.max_epochs = 4
    run.fit(run.lightning_module, DataLoader(nets.vectors(), 10))
    assert ours(run) == [own]


def test_a_probe_of_another_name_is_measured_beside_that_of_the_program(asked_for, tmp_path):
    asked_for("[{class_path: NeuralCollapse, init_args: {figures: false, probe: val}}]")
    run = nets.fit(tmp_path, [NeuralCollapse(figures=False)])
    assert [callback.probe.key for callback in ours(run)] == ["train", "val"]
    assert {"nc/train/nc1", "nc/val/nc1"} <= set(run.callback_metrics)


def test_fit_again_goes_on_with_the_same_callbacks(asked_for, tmp_path):
    asked_for(EVERY_EPOCH)
    run = nets.fit(tmp_path)
    before = list(run.callbacks)
    run.fit_loop.max_epochs = 4
    run.fit(run.lightning_module, DataLoader(nets.vectors(), 10))
    assert run.callbacks == before
    assert epochs(ours(run)[0]) == [0, 1, 2, 3, 4]


def test_resuming_goes_on_with_the_history(asked_for, tmp_path):
    asked_for(EVERY_EPOCH)
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    run = nets.fit(tmp_path, [checkpoint], enable_checkpointing=True)
    assert run.callbacks[-1] is checkpoint  # it writes what the others have measured
    resumed = nets.fit(
        tmp_path, max_epochs=4, fit_options={"ckpt_path": checkpoint.last_model_path}
    )
    assert epochs(ours(resumed)[0]) == [0, 1, 2, 3, 4]


def test_validation_by_itself_is_measured(asked_for, tmp_path):
    asked_for("[{class_path: NeuralCollapse, init_args: {figures: false, probe: val}}]")
    run = nets.trainer(tmp_path)
    run.validate(nets.Classifier(), DataLoader(nets.vectors(), 10), verbose=False)
    assert [m.stage for m in ours(run)[0].history] == ["validate"]


def test_a_file_can_name_our_functions_and_callbacks_that_the_program_has_imported():
    (made,) = callbacks_of(
        """
        - class_path: tests.test_factory.Refusing
          init_args:
            pool: masked_mean
            probe:
              class_path: lightning_nc.Probe
              init_args: {name: mine, unpack: lightning_nc.next_token, forward: net}
        """
    )
    assert isinstance(made, Refusing)
    assert made.measure.pool is lightning_nc.masked_mean
    assert made.probe.unpack is lightning_nc.next_token


def test_a_probe_can_be_written_once_and_meant_twice():
    made = callbacks_of(
        """
        - class_path: NeuralCollapse
          init_args: {probe: &mine {samples_per_class: 7}}
        - class_path: EquiSeparation
          init_args: {probe: *mine}
        """
    )
    assert [each.probe.samples_per_class for each in made] == [7, 7]


WRONG = {
    "class_path: NeuralCollapse": "must be a list of entries",
    "": "must be a list of entries",
    "[{class_path: NeuralColapse}]": "'NeuralColapse' is no callback .* lightning_nc has EquiS",
    "[{class_path: Probe}]": "'Probe' is no callback that can be used",
    "[{class_path: 3}]": "3 is no callback",
    "[{class_path: [NeuralCollapse]}]": "NeuralCollapse'. is no callback",
    "[NeuralCollapse]": "'NeuralCollapse' is not a callback of lightning_nc",
    "[{class_path: NeuralCollapse, every_n_epochs: 2}]": "'every_n_epochs' beside class_path",
    "[{class_path: NeuralCollapse, 3: 4, x: 5}]": "3, 'x' beside class_path",
    "[{class_path: NeuralCollapse, init_args: {every: 2}}]": "unexpected keyword argument 'every'",
    "[{class_path: NeuralCollapse, init_args: {3: 2}}]": "init_args .3: 2., which do not map names",
    "[{class_path: GeometrySummary, init_args: {x: 2}}]": "unexpected keyword argument 'x'",
    "[{class_path: NeuralCollapse, init_args: {probe: train}}, {class_path: NeuralCollapse}]": (
        "2 callbacks of the file would log the keys nc/train/"
    ),
    "[{class_path: NeuralCollapse, init_args: {probe: tran}}]": "Probe source 'tran' is none of",
    "[{class_path: NeuralCollapse, init_args: {pool: 3}}]": "pool must be a function .* got 3",
    "[{class_path: NeuralCollapse, init_args: [2]}]": "NeuralCollapse has init_args .2., which do",
    "[{class_path: NeuralCollapse, init_args: {every_n_epochs: two}}]": "must be 1 or more, got",
    "[{class_path: NeuralCollapse": "while parsing",
}
COMMAND = "{command: touch called}"
BOMB = "\n".join(
    ["- &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"- &a{n} [{', '.join(9 * [f'*a{n - 1}'])}]" for n in range(1, 9)]
)
HOSTILE = {
    f"[{{class_path: os.system, init_args: {COMMAND}}}]": "'os.system' is no callback",
    f"[{{class_path: MeasureCallback, init_args: {{measure: {{class_path: os.system, init_args: "
    f"{COMMAND}}}}}}}]": "'os.system' is not made for a file",
    f"[{{class_path: NeuralCollapse, init_args: {{probe: {{class_path: os.system, init_args: "
    f"{COMMAND}}}}}}}]": "'os.system' is not made for a file",
    f"[{{class_path: NeuralCollapse, init_args: {{probe: {{name: x, source: {{class_path: "
    f"os.system, init_args: {COMMAND}}}}}}}}}]": "'os.system' is not made for a file",
    "[{class_path: NeuralCollapse, init_args: {probe: {unpack: os.system}}}]": (
        "unpack 'os.system' is none of the functions that a file can name: first_token"
    ),
    "[{class_path: NeuralCollapse, init_args: {pool: os.system}}]": "pool 'os.system' is none of",
    '[!!python/object/apply:os.system ["touch called"]]': "could not determine a constructor",
    "[{class_path: exits_at_import.Callback}]": "'exits_at_import.Callback' is no callback",
    "[{class_path: lightning_nc.callbacks.from_file.CallbacksOfFile}]": "is no callback",
    BOMB: "stands for more than 10,000 values",
    "- &a [*a, {class_path: NeuralCollapse}]": "stands for more than 10,000 values",
    f"{EVERY_EPOCH} #" + 70_000 * "x": "longer than 65,536 characters",
    3000 * "[": "RecursionError",
}


@pytest.mark.parametrize("text", HOSTILE, ids=list(HOSTILE.values()))
def test_what_a_file_names_is_not_imported_made_or_called_before_it_is_checked(
    text, asked_for, tmp_path, monkeypatch
):
    asked_for(text)
    (tmp_path / "exits_at_import.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    tracemalloc.start()
    run, told = fit_and_what_it_told(tmp_path, max_epochs=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert run.current_epoch == 1
    assert ours(run) == []
    assert [HOSTILE[text] in each for each in told] == [True], told
    assert len(told[0]) < 1000
    assert not Path("called").exists()
    assert peak < 50e6


@pytest.mark.parametrize("kind", ["a pipe", "a folder"])
def test_what_is_not_a_file_is_not_waited_for(kind, asked_for, tmp_path):
    path = asked_for("")
    path.unlink()
    (os.mkfifo if kind == "a pipe" else os.mkdir)(path)
    run, told = fit_and_what_it_told(tmp_path, max_epochs=1)
    assert run.current_epoch == 1
    assert ["it is not a file" in each for each in told] == [True]


@pytest.mark.parametrize("text", WRONG)
def test_with_a_file_that_is_wrong_training_goes_on_with_one_warning(text, asked_for, tmp_path):
    path = asked_for(text)
    run, told = fit_and_what_it_told(tmp_path)
    run.validate(run.lightning_module, DataLoader(nets.vectors(), 10), verbose=False)
    assert run.current_epoch == 2
    assert ours(run) == []
    assert len(told) == 1
    assert f"LIGHTNING_NC_CALLBACKS names {path}, which adds no callbacks" in told[0]
    assert re.search(WRONG[text], told[0]), told[0]


def test_with_a_file_that_is_missing_training_goes_on_with_one_warning(asked_for, tmp_path):
    asked_for(EVERY_EPOCH).unlink()
    run, told = fit_and_what_it_told(tmp_path)
    assert run.current_epoch == 2
    assert len(told) == 1
    assert "No such file or directory" in told[0]


def test_a_callback_that_cannot_be_set_up_is_left_out_and_the_others_measure(asked_for, tmp_path):
    asked_for(REFUSED_AND_NOT)
    run, told = fit_and_what_it_told(tmp_path)
    assert [callback.probe.key for callback in ours(run)] == ["train"]
    assert epochs(ours(run)[0]) == [0, 1, 2]
    assert len(told) == 1
    assert "Refusing; it is left out of this run: ValueError: it cannot measure here" in told[0]


def test_where_the_package_cannot_be_imported_trainers_can_still_be_made(
    asked_for, tmp_path, monkeypatch
):
    asked_for(EVERY_EPOCH)
    monkeypatch.setitem(sys.modules, "lightning_nc.callbacks.from_file", None)
    with pytest.warns(RuntimeWarning, match="lightning_nc cannot be imported, so nothing is"):
        run = nets.trainer(tmp_path)
    assert ours(run) == []


def test_a_process_that_does_not_come_is_not_waited_for_in_a_broadcast(asked_for, monkeypatch):
    path = asked_for(EVERY_EPOCH)
    place = MeetingPlace(torch.distributed.HashStore(), rank=0, world=2)
    monkeypatch.setattr(from_file, "meeting_place", lambda: place)
    monkeypatch.setattr(from_file, "_PATIENCE", 0.1)
    callback = from_file.CallbacksOfFile(str(path), factory.VARIABLE)
    # without a strategy there is nothing to broadcast by
    trainer = SimpleNamespace(world_size=2, is_global_zero=True, callbacks=[callback])
    with nets.our_warnings() as told:
        callback.setup(trainer, None, "fit")
    assert trainer.callbacks == [callback]
    assert told == [
        f"LIGHTNING_NC_CALLBACKS names {path}, which adds no callbacks, so nothing is measured: "
        "process 1 did not reach setup within 0.1 s."
    ]


def test_the_first_process_reads_the_file_for_all(asked_for, tmp_path, monkeypatch):
    asked_for(EVERY_EPOCH).unlink()  # there is none on this machine
    run = nets.trainer(tmp_path)
    monkeypatch.setattr(run.strategy, "broadcast", lambda text: EVERY_EPOCH)
    run.fit(nets.Classifier(), DataLoader(nets.vectors(), 10))
    assert epochs(ours(run)[0]) == [0, 1, 2]


@pytest.mark.slow
def test_two_processes_measure_together_or_are_told_once_and_train_on(asked_for, tmp_path):
    path = asked_for(EVERY_EPOCH)
    fit = {"devices": 2, "strategy": "ddp", "measured": None, "limit_val_batches": 0}
    done = {}
    for name, text in {"measured": EVERY_EPOCH, "wrong": "[{class_path: No}]"}.items():
        path.write_text(text)
        done[name] = run_script(tmp_path, {name: fit | {"csv": name == "measured"}})
        assert done[name].returncode == 0, done[name].stderr
    rows = csv_rows(tmp_path)
    assert [float(e) for row in rows if (e := row["nc/train/epochs_completed"])] == [0, 1, 2, 3, 4]
    assert [len(warnings_of(done[name])) for name in ("measured", "wrong")] == [0, 1]
    for rank in (0, 1):  # running statistics of BatchNorm are their own
        files = [tmp_path / f"{name}-{rank}.pt" for name in done]
        weights = [torch.load(file, weights_only=True)["weights"] for file in files]
        assert nets.difference(*weights) is None
