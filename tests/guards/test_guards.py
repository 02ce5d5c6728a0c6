import random
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_nc.guards import unobtrusive as guards
from lightning_nc.guards.generators import seed_generators
from lightning_nc.guards.unobtrusive import unobtrusive
from tests import architectures


class Interrupted(Exception):
    pass


def run_inside(fails, action, model=None, **options):
    """Run an action under guard, which ends well or with an exception."""
    model = nn.Identity() if model is None else model
    with pytest.raises(Interrupted) if fails else nullcontext(), unobtrusive(model, **options):
        action()
        if fails:
            raise Interrupted


@pytest.fixture(params=[False, True], ids=["passes", "fails"])
def inside(request):
    return partial(run_inside, request.param)


def draw():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()


def test_global_generators_go_on_as_if_nothing_had_been_drawn(inside):
    seed_generators(7, 0)
    expected = draw()
    seed_generators(7, 0)
    inside(lambda: (draw(), seed_generators(1, 2)))
    assert draw() == expected


def test_seeds_differ_by_seed_and_by_number():
    drawn = set()
    for seed, number in ((0, 0), (0, 1), (1, 0), (2**40, 5)):
        seed_generators(seed, number)
        drawn.add(str(draw()))
    assert len(drawn) == 4


@pytest.fixture(name="net")
def frozen_net():
    return make_net()


def make_net():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.BatchNorm1d(4))
    model[1].eval()  # frozen by the user
    return model


def test_the_mode_of_every_module_is_kept(net, inside):
    modes = [module.training for module in net.modules()]
    assert modes == [True, True, False, True, True]
    seen = []
    inside(lambda: seen.extend(module.training for module in net.modules()), net)
    assert not any(seen)
    assert [module.training for module in net.modules()] == modes


class MergingLinear(nn.Linear):
    """Merges its update into the weight on its way to evaluation, as LoRA layers do."""

    def __init__(self):
        super().__init__(3, 3)
        self.update = nn.Parameter(torch.ones(3, 3))

    def train(self, mode=True):
        if self.training and not mode:
            self.weight.data += self.update
        return super().train(mode)


def test_code_of_the_user_that_runs_on_changes_of_mode_is_not_run(inside):
    model = nn.Sequential(MergingLinear())
    before = model[0].weight.clone()
    inside(lambda: model(torch.zeros(1, 3)), model)
    assert torch.equal(model[0].weight, before)
    assert model[0].training


class Observer(nn.Module):
    """Changes its buffers in evaluation, in every way there is."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("replaced", torch.zeros(2))
        self.register_buffer("hidden", torch.zeros(2), persistent=False)
        self.register_buffer("empty", None)

    def forward(self, x):
        self.seen += 1
        self.replaced = self.replaced + 1
        self.hidden.copy_(x)
        self.empty = x
        self.register_buffer("new", x)
        return x


def test_buffers_come_back_with_content_and_identity(inside):
    model = nn.Sequential(Observer())
    before = dict(model[0]._buffers)
    inside(lambda: model(torch.ones(2)), model)
    after = dict(model[0]._buffers)
    assert list(after) == list(before)
    assert all(after[name] is buffer for name, buffer in before.items())
    assert all(buffer is None or not buffer.any() for buffer in after.values())


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_sparse_buffers_come_back_with_those_beside_them(layout, inside):
    model = nn.BatchNorm1d(2)
    model.register_buffer("adjacency", torch.eye(3).to_sparse(layout=layout))
    adjacency, seen = model.adjacency, model.num_batches_tracked

    def change():
        model.adjacency.values().mul_(2)
        model.num_batches_tracked += 1

    inside(change, model)
    assert model.adjacency is adjacency
    assert torch.equal(adjacency.to_dense(), torch.eye(3))
    assert model.num_batches_tracked is seen
    assert int(seen) == 0


def resize(buffer):
    buffer.resize_(5).fill_(1)


def shrink(buffer):
    buffer.resize_(1).fill_(1)


def give_other_memory(buffer):
    buffer.data = torch.ones(4)


def turn(buffer):
    buffer.unsqueeze_(1).neg_()


@pytest.mark.parametrize("change", [resize, shrink, give_other_memory, turn])
@pytest.mark.parametrize("content", [[], [0.0, 1.0], [torch.nan, 2.0]], ids=str)
def test_buffers_of_another_size_or_place_come_back_with_those_beside_them(change, content, inside):
    model = nn.BatchNorm1d(2)
    model.register_buffer("sized", torch.tensor(content))
    sized, whole = model.sized, model.sized.detach()
    inside(lambda: (change(model.sized), model.running_mean.add_(1)), model)
    assert model.sized is sized
    assert (sized.shape, sized.stride()) == (whole.shape, whole.stride())
    assert sized.data_ptr() == whole.data_ptr()
    assert torch.equal(sized.view(torch.int32), torch.tensor(content).view(torch.int32))
    assert not model.running_mean.any()


def test_parts_that_a_forward_pass_replaces_come_back_in_their_order(inside):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.BatchNorm1d(2))
    parts, weights = list(model), dict(model[0].named_parameters())

    def replace():
        del model[0].weight
        model[0].weight = nn.Parameter(torch.zeros(2, 2))
        model[1] = nn.Tanh()
        del model[2]
        model.add_module("more", nn.Identity())

    inside(replace, model)
    assert list(model) == parts
    after = dict(model[0].named_parameters())
    assert list(after) == list(weights)
    assert all(after[name] is weight for name, weight in weights.items())


def test_running_statistics_come_back_after_batch_statistics(net, inside):
    before = [(b, b.clone()) for b in net.buffers()]
    inside(lambda: net(torch.randn(9, 3)), net, batch_norm="batch")
    after = list(net.buffers())
    assert len(before) == len(after) == 6
    for (buffer, content), now in zip(before, after, strict=True):
        assert now is buffer
        assert torch.equal(now, content)


def test_batch_statistics_are_those_of_training_without_dropout(net):
    x = torch.randn(9, 3)
    with unobtrusive(net, batch_norm="batch"):
        observed = net(x)
    net.train()[2].eval()
    assert torch.equal(observed, net(x))


def test_evaluation_uses_running_statistics(net):
    x = torch.randn(9, 3)
    with unobtrusive(net):
        observed = net(x)
    assert torch.equal(observed, net.eval()(x))


def in_place(model):
    model[0].bias.mul_(1.5)


def through_data(model):  # which no version counter sees
    model[0].bias.data.mul_(1.5)


@pytest.mark.parametrize("change", [in_place, through_data])
def test_parameters_changed_in_place_are_reported(change):
    model = nn.Sequential(nn.Linear(2, 2))
    nn.init.ones_(model[0].bias)
    message = r"changed the parameters 0\.bias in place"
    with pytest.raises(RuntimeError, match=message), unobtrusive(model):
        change(model)


def test_parameters_whose_data_are_replaced_come_back(inside):
    model = nn.Linear(2, 2)  # as layers of bounded norm do in their forward pass
    before = model.weight.detach().clone()

    def renormalise():
        model.weight.data = torch.renorm(model.weight.data, 2, 0, 0.1)

    inside(renormalise, model)
    assert torch.equal(model.weight, before)


def test_an_embedding_of_bounded_norm_that_changes_nothing_is_let_be():
    model = nn.Embedding(4, 2, max_norm=100.0)
    with unobtrusive(model):
        model(torch.arange(4))


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_rows_of_an_embedding_of_bounded_norm_come_back(inside, kind):
    model = kind(4, 2, max_norm=0.1)
    before = model.weight.detach().clone()
    inside(lambda: model(torch.arange(4)[None]), model)
    assert torch.equal(model.weight, before)


def test_parameters_without_a_shape_are_asked_to_be_given_one():
    model = nn.LazyLinear(2)
    with pytest.raises(RuntimeError, match=r"weight.*no shape yet"), unobtrusive(model):
        pass


def test_a_graph_that_the_program_keeps_still_runs_backward(inside):
    """Autograd refuses a graph of which a tensor was written to since, whatever was written."""
    model = nn.Linear(2, 2)
    model.register_buffer("scale", torch.full((2,), 3.0))
    loss = (model.weight * model.scale).sum()
    inside(lambda: model(torch.ones(2)), model)
    loss.backward()
    assert torch.equal(model.weight.grad, torch.full((2, 2), 3.0))


def test_generators_held_by_modules_are_put_back(inside):
    model = nn.Linear(2, 2)
    model.noise = torch.Generator().manual_seed(3)
    before = model.noise.get_state()
    inside(lambda: torch.rand(3, generator=model.noise), model)
    assert torch.equal(model.noise.get_state(), before)


def test_a_failure_is_not_hidden_by_a_changed_parameter():
    model = nn.Linear(2, 2)
    run_inside(True, lambda: model.bias.add_(1.0), model)


class Logs(nn.Identity):
    """A part of a network whose forward pass logs, which is refused."""

    def log(self, name, value):
        raise RuntimeError("logged")

    def log_dict(self, values):
        self.log(*values.popitem())

    def forward(self, x):
        self.log_dict({"largest": x.max()})
        self.log("mean", x.mean())
        return x


def test_what_a_forward_pass_logs_is_dropped_inside_and_not_outside(inside):
    model = Logs()
    inside(lambda: model(torch.ones(2)), model)
    with pytest.raises(RuntimeError, match="logged"):
        model(torch.ones(2))


class Logarithm(nn.Module):
    """A part of a network with a method of the same name, which is part of what it computes."""

    def log(self, x):
        return x.log()

    def forward(self, x):
        return self.log(x)


def test_a_method_that_is_called_log_and_is_none_of_lightnings_computes_inside(inside):
    model, x = Logarithm(), torch.full((2,), 3.0)
    inside(lambda: torch.testing.assert_close(model(x), x.log()), model)


def test_logging_is_put_back_without_other_guards():
    plain, own = Logs(), Logs()
    own.log = print
    with guards._logging_off(nn.Sequential(plain, own)):
        assert {"log", "log_dict"} <= vars(plain).keys()
    assert own.log is print
    assert not {"log", "log_dict"} & vars(plain).keys()


def test_gradients_are_off_inside_and_as_before_outside(inside):
    modes = []
    for before in (True, False):
        with torch.set_grad_enabled(before):
            inside(lambda: modes.append(torch.is_grad_enabled()))
            assert torch.is_grad_enabled() is before
    assert modes == [False, False]


def test_tensors_made_inside_can_be_kept_although_inference_mode_is_on_outside(inside):
    made = []
    with torch.inference_mode():
        inside(lambda: made.append(torch.zeros(2)))
        assert torch.is_inference_mode_enabled()
    assert not made[0].is_inference()


def test_compiled_networks_run_eagerly_inside(inside):
    runs = []

    def backend(graph, inputs):
        runs.append("compiled")
        return graph.forward

    model = torch.compile(nn.Linear(2, 2), backend=backend)
    inside(lambda: model(torch.zeros(1, 2)), model)
    assert runs == []
    model(torch.zeros(1, 2))
    assert runs == ["compiled"]


@pytest.mark.parametrize("before", [True, False])
def test_torchs_encoder_runs_layer_by_layer_inside(inside, before):
    net, given = architectures.StockEncoder().train(), []
    net.encoder.layers[1].register_forward_hook(lambda _, args, h: given.append((args[0], h)))
    try:
        torch.backends.mha.set_fastpath_enabled(before)
        inside(lambda: net(**architectures.padded()), net)
        assert torch.backends.mha.get_fastpath_enabled() is before
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert [x.shape for x in given[0]] == [(6, 6, 16), (6, 6, 16)]


def test_reentrant_checkpoints_only_call_their_functions_inside(inside):
    layer, outputs = nn.Linear(2, 2), []
    x = torch.ones(1, 2, requires_grad=True)

    def run():
        with torch.enable_grad():
            outputs.append(checkpoint(layer, x, use_reentrant=True))

    inside(run, layer)
    run()
    within, after = (output.grad_fn.name() for output in outputs)
    assert (within, after) == ("AddmmBackward0", "CheckpointFunctionBackward")
    assert torch.equal(*outputs)


class Counting(nn.Module):
    """Works with numbers, texts and tensors that are plain attributes."""

    def __init__(self):
        super().__init__()
        self.calls, self.largest, self.state = 0, None, "new"

    def forward(self, x):
        self.calls += 1
        self.state = "run"
        self.largest = x.max()
        self.seen_shape = float(len(x))
        return x + self.calls


def test_plain_attributes_of_modules_are_kept(inside):
    net = nn.Sequential(Counting())
    net(torch.zeros(4, 3))
    del net[0].seen_shape
    largest = net[0].largest
    inside(lambda: net(torch.ones(5, 3)), model=net)
    assert (net[0].calls, net[0].state) == (1, "run")
    assert net[0].largest is largest
    assert not hasattr(net[0], "seen_shape")
