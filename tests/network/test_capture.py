from collections import OrderedDict
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from lightning_nc.guards.unobtrusive import unobtrusive
from lightning_nc.network.calling import call_model
from lightning_nc.network.capture import capture
from lightning_nc.network.points import (
    Point,
    clean_name,
    contained,
    match_layers,
    named_modules,
)
from lightning_nc.network.trace import trace
from lightning_nc.passes.feature_cache import FeatureCache, belongs_on_host, free_megabytes
from tests import architectures


def points_of(model, layers, inputs):
    with unobtrusive(model):
        runs = trace(model, inputs, partial(call_model, model)).keys()
    return match_layers(layers, runs, named_modules(model))


def features(model, points, inputs, samples):
    """What is captured, copied while it is valid, by the points' names."""
    seen = {}
    with unobtrusive(model), capture(model, points) as watched:
        watched.forward(inputs, samples, lambda point, h: seen.update({point.name: h.clone()}))
    watched.require_all()
    return seen


def captured(model, layers, inputs, samples=6):
    return features(model, points_of(model, layers, inputs), inputs, samples)


def hookless(model):
    return not any(module._forward_hooks for module in model.modules())


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(inplace=True), nn.Linear(8, 4), nn.Tanh())


@pytest.fixture
def x():
    return torch.randn(6, 5)


def test_takes_outputs_by_name(net, x):
    assert torch.equal(captured(net, ["3"], x)["3"], net(x))


def test_a_single_name_may_be_a_string(net, x):
    assert list(captured(net, "2", x)) == ["2"]


def test_globs_match_in_running_order():
    model = architectures.block_mlp()
    found = captured(model, ["*.linear", "4"], torch.randn(6, 5))
    assert list(found) == ["1.linear", "2.linear", "3.linear", "4"]


def test_a_star_stops_at_a_dot_and_two_do_not():
    model, x = architectures.block_mlp(depth=2), torch.randn(6, 5)
    names = ["0", "1.linear", "1.relu", "1", "2.linear", "2.relu", "2", "3"]
    assert list(captured(model, ["*"], x)) == ["0", "1", "2", "3"]
    assert list(captured(model, ["**"], x)) == names
    assert list(captured(model, ["2.*"], x)) == ["2.linear", "2.relu"]


@pytest.mark.parametrize("glob", ["*", "**"])
def test_a_glob_does_not_match_the_network_as_a_whole(net, x, glob):
    assert list(captured(net, glob, x)) == ["0", "1", "2", "3"]


def test_parts_of_a_module_that_has_a_point_are_found():
    names = ["input", "a", "a.b.c", "a.b.c.d", "ab", "relu-1", "x-1", "x-2", "x.y-1", "x.y-2"]
    inside = {"a.b.c": "a", "a.b.c.d": "a.b.c", "x.y-1": "x-1", "x.y-2": "x-1"}
    assert contained(names) == inside
    assert contained(["layer-1.0", "layer-1"]) == {"layer-1.0": "layer-1"}


def test_a_layer_named_twice_is_one_point(net, x):
    assert [point.name for point in points_of(net, ["1", "?", "1"], x)] == ["0", "1", "2", "3"]


def test_points_come_in_running_order_however_they_are_listed(net, x):
    assert [point.name for point in points_of(net, ["3", "input", "1"], x)] == ["input", "1", "3"]


def test_a_layer_with_two_callables_is_refused(net, x):
    with pytest.raises(ValueError, match="'1' twice"):
        points_of(net, {"1": torch.sin, "[1]": torch.cos}, x)


def test_an_unknown_layer_is_told_with_the_names_that_are_like_it(x):
    parts = {"first": nn.Linear(5, 3), "relu": nn.ReLU(), "second": nn.Linear(3, 2)}
    net = nn.Sequential(OrderedDict(parts))
    for unknown, like in {"body.relu": "'relu'", "sekond": "'second'"}.items():
        with pytest.raises(ValueError, match=f"'{unknown}': no module .*, are {like};"):
            points_of(net, unknown, x)


def test_callables_make_features_of_an_output(net, x):
    found = captured(net, {"0": lambda output: output[:, :2] * 2}, x)["0"]
    torch.testing.assert_close(found, 2 * net[0](x)[:, :2])


def test_input_is_the_raw_input(net, x):
    assert torch.equal(captured(net, ["input"], x)["input"], x)
    assert torch.equal(captured(net, {"input": lambda x: x[:, :2]}, x)["input"], x[:, :2])


def test_images_are_flattened():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    x = torch.randn(6, 3, 8, 8)
    assert torch.equal(captured(model, ["0"], x)["0"], model[0](x).flatten(1))


def test_an_in_place_layer_after_the_captured_one_does_not_change_what_was_seen(net, x):
    assert torch.equal(captured(net, ["0"], x)["0"], net[0](x))
    assert (net[0](x) < 0).any()


def test_an_in_place_layer_after_the_captured_one_does_not_change_what_is_cached(net, x):
    (point,) = points_of(net, ["0"], x)
    cache = FeatureCache({point: 8}, 12)
    labels = torch.arange(6)
    with unobtrusive(net), capture(net, [point]) as watched:
        watched.forward(x, 6, lambda p, h: cache.keep(p, h, labels))
        watched.forward(-x, 6, lambda p, h: cache.keep(p, h, labels + 6))
    replayed = []
    cache.replay([point], lambda *kept: replayed.append(kept), {})
    ((kept_point, kept, kept_labels),) = replayed
    assert kept_point == point
    assert torch.equal(kept, torch.cat([net[0](x), net[0](-x)]))
    assert torch.equal(kept_labels, torch.arange(12))


def test_features_are_kept_on_the_host_where_they_would_fill_half_of_what_is_free():
    assert not belongs_on_host(2048, free=4096)
    assert belongs_on_host(2048, free=4095)
    assert not belongs_on_host(2048, free_megabytes(torch.device("cpu")))  # is the host's


def of_another_allocator(_):
    raise RuntimeError("CUDAPluggableAllocator does not yet support getDeviceStats")


@pytest.mark.parametrize(
    ("fraction", "allocated", "megabytes"),
    [
        (1.0, lambda _: 100 * 2**20, 400),  # and 100 MB that the allocator holds unused
        (0.25, lambda _: 100 * 2**20, 150),
        (1.0, of_another_allocator, 300),
    ],
)
def test_what_is_free_on_a_card_is_what_this_process_may_still_take(
    fraction, allocated, megabytes, monkeypatch
):
    told = {
        "mem_get_info": lambda _: (300 * 2**20, 1000 * 2**20),
        "memory_allocated": allocated,
        "memory_reserved": lambda _: 200 * 2**20,
        "get_per_process_memory_fraction": lambda _: fraction,
    }
    for name, answer in told.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    assert free_megabytes(torch.device("cuda", 0)) == megabytes


def test_a_module_run_twice_gives_a_point_per_run():
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(5, 5), relu, nn.Linear(5, 5), relu)
    x = torch.randn(6, 5)
    found = captured(model, ["1"], x)
    assert torch.equal(found["1-1"], model[:2](x))
    assert torch.equal(found["1-2"], model(x))


@pytest.mark.parametrize("layers", ["0.1", ["0.1"], "0.*1"])
def test_names_of_wrappers_are_stripped(net, x, layers):
    expected = net[:2](x)
    model = nn.Sequential(checkpoint_wrapper(net))
    assert "0._checkpoint_wrapped_module.1" in dict(model.named_modules())
    assert torch.equal(captured(model, layers, x)["0.1"], expected)


def test_clean_names_keep_what_users_wrote():
    assert clean_name("_orig_mod.module._fsdp_wrapped_module.orig_mod") == "module.orig_mod"


@pytest.mark.parametrize("whole", [True, False])
def test_hooks_fire_in_compiled_networks_under_guard(net, x, whole):
    compiled = (
        torch.compile(net, backend="eager")
        if whole
        else nn.Sequential(torch.compile(net, backend="eager"), nn.Identity())
    )
    expected = net[:2](x)
    with torch.no_grad():
        compiled(x)  # compiled before there are hooks, as a validation does
    name = "1" if whole else "0.1"
    assert torch.equal(captured(compiled, [name], x)[name], expected)
    assert hookless(compiled)


def test_hooks_fire_in_a_module_compiled_in_place(net, x):
    expected = net[:2](x)
    net.compile(backend="eager")
    with torch.no_grad():
        net(x)
    assert torch.equal(captured(net, ["1"], x)["1"], expected)


def test_the_network_may_be_called_by_others_while_it_is_watched(net, x):
    seen = []
    with unobtrusive(net), capture(net, points_of(net, ["1"], x)) as watched:
        watched.forward(x, 6, lambda point, h: seen.append(point.name))
        net(x)
    assert seen == ["1"]


class _Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, *, values, scale):
        return self.second(input=self.first(input=values) * scale)


def test_keyword_calls_are_seen_on_both_sides(x):
    model = _Keywords()
    inputs = {"scale": torch.full((6, 1), 2.0), "values": x}
    points = [Point("in", "second", side="input"), Point("out", "second")]
    found = features(model, points, inputs, 6)
    torch.testing.assert_close(found["in"], 2 * model.first(x))
    torch.testing.assert_close(found["out"], model(**inputs))


def test_tuples_of_inputs_are_positional_arguments(x):
    model = nn.Bilinear(5, 5, 3)
    points = [Point("input", None), Point("out", "")]
    found = features(model, points, (x, 2 * x), 6)
    assert torch.equal(found["input"], x)
    assert torch.equal(found["out"], model(x, 2 * x))


@pytest.mark.parametrize("part", ["whole", "part"])
def test_what_the_call_returns_may_be_of_a_part_or_one_of_several_outputs(net, x, part):
    seen, point = {}, Point("output", "", side="returned")
    call = {"whole": lambda x: net(x) + 1, "part": lambda x: net[:3](x) + 1}[part]
    with unobtrusive(net), capture(net, [point], call=call) as watched:
        watched.forward(x, 6, lambda point, h: seen.update({point.name: h.clone()}))
    watched.require_all()
    assert torch.equal(seen["output"], call(x))


def test_the_head_is_copied_when_it_runs(net, x):
    with unobtrusive(net), capture(net, [], {"2": 0}) as watched:
        watched.forward(x, 6, lambda point, h: None)
    head = watched.heads["2"]
    assert torch.equal(head.weight, net[2].weight)  # which may be large: float32 as it is
    assert torch.equal(head.bias, net[2].bias.double())
    assert head.weight.data_ptr() != net[2].weight.data_ptr()
    assert not head.weight.requires_grad


def test_the_tuple_of_an_lstm_gives_its_sequence():
    model = nn.LSTM(5, 4, batch_first=True)
    x = torch.randn(6, 3, 5)
    found = captured(model, {"": lambda output: output[0][:, -1]}, x)[""]
    torch.testing.assert_close(found, model(x)[1][0][0])
    assert torch.equal(captured(model, [""], x)[""], model(x)[0].flatten(1))


def test_model_outputs_give_states_or_logits():
    model = architectures.published("Bert")
    inputs = architectures.tokens()
    first = {"bert": lambda output: output.last_hidden_state[:, 0]}
    with torch.no_grad():
        expected = model.eval()(**inputs, output_hidden_states=True)
    found = captured(model, first, inputs, 3)["bert"]
    torch.testing.assert_close(found, expected.hidden_states[-1][:, 0])
    points = [Point("logits", "")]
    assert torch.equal(features(model, points, inputs, 3)["logits"], expected.logits)


def test_a_layer_that_does_not_run_on_a_batch_is_an_error(net, x):
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x) if x.sum() > 0 else x

    model = Skips()
    points = points_of(model, ["net.1"], x.abs())
    with pytest.raises(ValueError, match=r"'net\.1'.*did not run"):
        features(model, points, -x.abs(), 6)


def test_hooks_are_gone_after_an_exception_in_the_network(net, x):
    points = points_of(net, ["1"], x)
    with pytest.raises(RuntimeError, match="shapes"):
        features(net, points, x[:, :3], 6)
    assert hookless(net)


def test_hooks_are_gone_after_an_exception_in_consume(net, x):
    def fail(point, h):
        raise KeyError(point.name)

    points = points_of(net, ["1"], x)
    with unobtrusive(net), capture(net, points) as watched:
        watched.forward(x, 6, fail)
    with pytest.raises(KeyError):
        watched.require_all()
    assert hookless(net)


def test_what_fails_at_one_point_costs_no_other(net, x):
    seen = []

    def fail(point, h):
        seen.append(point.name)
        if point.name == "1":
            raise KeyError(point.name)

    points = points_of(net, ["0", "1", "2"], x)
    with unobtrusive(net), capture(net, points, {"3": 0}) as watched:
        for _ in range(2):
            watched.forward(x, 6, fail)
    assert seen == ["0", "1", "2", "0", "2"]  # a point that failed is not tried again
    by_name = {getattr(place, "name", place): type(e) for place, e in watched.failures.items()}
    assert by_name == {"1": KeyError, "3": ValueError}  # Tanh is no head
    net(x)  # calls nothing of ours any more
