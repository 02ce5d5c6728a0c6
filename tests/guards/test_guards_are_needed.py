from contextlib import contextmanager, nullcontext
from functools import partial

import pytest
import torch

from lightning_nc.guards import buffers, generators, hooks, modes, parameters
from lightning_nc.guards import unobtrusive as guards
from lightning_nc.passes import found_layers
from tests.guards import (
    test_checksum,
    test_guards,
    test_held_generators,
    test_hooks,
    test_restoring,
)
from tests.measures import test_measure

INFERENCE_MODE = torch.inference_mode


@contextmanager
def _eval_and_train(model):
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    yield
    model.train()
    for module, training in modes:
        module.training = training


def _stay_in_inference_mode(mode=True):
    return INFERENCE_MODE() if mode else nullcontext()


def _never(*_args):
    return torch.tensor(False)


def _nothing(*_args):
    return nullcontext()


@contextmanager
def ordinary_restoring():
    """As guards restored before: the first thing that fails ends it."""
    steps = []
    try:
        yield lambda what, restore, *given: steps.append(partial(restore, *given))
    finally:
        for step in steps:
            step()


class _NoMemory:
    generators = ()

    def __init__(self, *_):
        self.put_back = _nothing


def _needing_a_net(test):
    return lambda inside: test(test_guards.make_net(), inside)


CASES = {
    "global generators": (
        (guards, "generators_kept", _nothing),
        test_guards.test_global_generators_go_on_as_if_nothing_had_been_drawn,
    ),
    "generators of the data": (
        (guards, "held_generators", lambda data: []),
        lambda inside: test_held_generators.test_generators_held_by_the_data_are_put_back(
            False, test_held_generators.in_an_object_of_a_library
        ),
    ),
    "modes": (
        (guards, "_evaluation_flags", _nothing),
        _needing_a_net(test_guards.test_the_mode_of_every_module_is_kept),
    ),
    "flags instead of eval()": (
        (guards, "_evaluation_flags", _eval_and_train),
        test_guards.test_code_of_the_user_that_runs_on_changes_of_mode_is_not_run,
    ),
    "buffers": (
        (guards, "buffers_kept", _nothing),
        test_guards.test_buffers_come_back_with_content_and_identity,
    ),
    "attributes": (
        (guards, "Memory", _NoMemory),
        test_guards.test_plain_attributes_of_modules_are_kept,
    ),
    "running statistics": (
        (guards, "buffers_kept", _nothing),
        _needing_a_net(test_guards.test_running_statistics_come_back_after_batch_statistics),
    ),
    "batch statistics": (
        (guards, "_batch_statistics", _nothing),
        lambda inside: test_guards.test_batch_statistics_are_those_of_training_without_dropout(
            test_guards.make_net()
        ),
    ),
    "parameters": (
        (guards, "parameters_watched", _nothing),
        lambda inside: test_guards.test_parameters_changed_in_place_are_reported(
            test_guards.in_place
        ),
    ),
    "embeddings of bounded norm": (
        (guards, "bounded_norms_kept", _nothing),
        lambda inside: test_guards.test_rows_of_an_embedding_of_bounded_norm_come_back(
            inside, torch.nn.Embedding
        ),
    ),
    "moves within parameters": (
        (parameters, "Checksum", lambda: lambda x: x.view(torch.int32).sum(dtype=torch.int64)),
        lambda inside: test_checksum.test_a_forward_pass_that_moves_or_changes_numbers_is_noticed(
            test_checksum.roll, torch.float32
        ),
    ),
    "size of buffers": (
        (buffers, "restore_memory", lambda *_: None),
        lambda inside: (
            test_guards.test_buffers_of_another_size_or_place_come_back_with_those_beside_them(
                test_guards.resize, [0.0, 1.0], inside
            )
        ),
    ),
    "sparse buffers": (
        (buffers, "restore_content", lambda *_: None),
        lambda inside: test_guards.test_sparse_buffers_come_back_with_those_beside_them(
            torch.sparse_coo, inside
        ),
    ),
    "hooks": (
        (guards, "hooks_kept", lambda *_: nullcontext()),
        test_hooks.test_hooks_of_all_kinds_are_removed,
    ),
    "hooks of the user": (
        (hooks, "belongs_to_network", lambda _: True),
        lambda inside: test_hooks.test_hooks_of_the_user_run_in_a_pass_unless_they_are_kept_out(),
    ),
    "hooks of the network": (
        (hooks, "belongs_to_network", lambda _: False),
        lambda inside: test_hooks.test_without_hooks_of_the_user_a_network_computes_the_same(
            torch.nn.utils.spectral_norm
        ),
    ),
    "generators of devices": (
        (generators, "_devices_in_use", list),
        lambda inside: test_held_generators.test_generators_of_all_devices_in_use_are_put_back(
            inside, "xpu"
        ),
    ),
    "one after the other": (
        (modes, "restoring", ordinary_restoring),
        lambda inside: test_restoring.test_every_guard_goes_on_and_names_what_it_could_not_restore(
            test_restoring.modes
        ),
    ),
    "no logging": (
        (guards, "_logging_off", _nothing),
        test_guards.test_what_a_forward_pass_logs_is_dropped_inside_and_not_outside,
    ),
    "no gradients": (
        (torch, "no_grad", _nothing),
        test_guards.test_gradients_are_off_inside_and_as_before_outside,
    ),
    "no inference mode": (
        (torch, "inference_mode", _stay_in_inference_mode),
        test_guards.test_tensors_made_inside_can_be_kept_although_inference_mode_is_on_outside,
    ),
    "residual sums": (
        (found_layers, "has_changed", _never),
        lambda inside: test_measure.test_a_network_random_beyond_all_seeds_is_found_out(
            test_measure.make_noisy(), test_measure.make_images()
        ),
    ),
    "no fast path": (
        (guards, "fast_path_off", _nothing),
        lambda inside: test_guards.test_torchs_encoder_runs_layer_by_layer_inside(inside, True),
    ),
    "no reentrant checkpoints": (
        (guards, "gradient_checkpoints_off", _nothing),
        test_guards.test_reentrant_checkpoints_only_call_their_functions_inside,
    ),
    "no compilation": (
        (torch.compiler, "set_stance", _nothing),
        test_guards.test_compiled_networks_run_eagerly_inside,
    ),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
@pytest.mark.parametrize("case", CASES)
def test_each_guard_has_a_test_that_fails_without_it(monkeypatch, case):
    (owner, name, replacement), test = CASES[case]
    run = partial(test_guards.run_inside, False)
    test(inside=run)
    monkeypatch.setattr(owner, name, replacement)
    failures = (AssertionError, RuntimeError, pytest.fail.Exception, test_restoring.Broken)
    with pytest.raises(failures):
        test(inside=run)
