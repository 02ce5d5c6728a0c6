"""Every function and metric on the device against the formulas in float64 on the CPU."""

import copy
import inspect

import pytest
import torch

from lightning_nc import functional, metrics
from tests.gpu import expected, networks
from tests.gpu.device import device, only_our_warnings, tensor_float_32
from tests.gpu.functions import FUNCTIONS
from tests.gpu.given import CASES, clusters, given

pytestmark = only_our_warnings

OF_NETWORKS = ("gradient_kernel", "kernelized_similarity", "relative_similarity")


def assert_equal(found, wanted, rel=1e-9):
    """Compare all numbers of a tensor, or of a tuple of tensors, on any device."""
    if isinstance(found, torch.Tensor):
        found, wanted = (found,), (wanted,)
    for a, b in zip(found, wanted, strict=True):
        a, b = a.cpu().double(), torch.as_tensor(b).double()
        scale = float(b.abs().max())
        torch.testing.assert_close(a, b, rtol=rel, atol=rel * scale)


def test_every_function_of_tensors_is_among_those_that_are_compared():
    public = {n for n, f in vars(functional).items() if inspect.isfunction(f)}
    assert public == {*FUNCTIONS, *OF_NETWORKS}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_gives_what_its_formula_says(name, case):
    call, formula = FUNCTIONS[name]
    found = call(getattr(functional, name), given(case).to(device()))
    wanted = formula(given(case).to("cpu", torch.float64))
    assert_equal(found, wanted)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_gives_the_same_with_and_without_tf32(name):
    found = []
    for allowed in (True, False):
        with tensor_float_32(allowed):
            call, _ = FUNCTIONS[name]
            result = call(getattr(functional, name), given("float32").to(device()))
            found.append([t.cpu() for t in (result if isinstance(result, tuple) else (result,))])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("case", [c for c in CASES if "collapsed" in c])
def test_the_collapsed_cases_are_collapsed(case):
    x = given(case)
    assert 1e-14 < expected.fuzziness(x.features, x.labels) < 1e-11


@pytest.mark.parametrize("case", CASES)
def test_metrics_give_what_the_formulas_say_in_several_batches(case):
    x, on_cpu = given(case).to(device()), given(case).to("cpu", torch.float64)
    K, h, y = len(x.means), on_cpu.features, on_cpu.labels
    fuzziness = metrics.SeparationFuzziness(K).to(device())
    collapse = metrics.NeuralCollapse(K).to(device())
    for batch in torch.arange(len(y)).split(11):
        for metric in (fuzziness, collapse):
            metric.update(x.features[batch], x.labels[batch])
    m = expected.centred(expected.class_means(h, y))
    assert_equal(fuzziness.compute(), expected.fuzziness(h, y))
    wanted = {
        "nc1": expected.nc1(h, y),
        "nc2_equinorm_means": expected.equinorm(m),
        "nc2_equiangularity_means": expected.equiangularity(m),
        "nc2_maximal_angle_means": expected.maximal_angle(m),
        "nc2_etf_error": expected.etf_error(m),
        "gnc2": expected.uniformity(m),
        "cdnv": expected.cdnv(h, y),
    }
    values = collapse.compute()
    assert_equal(tuple(values[name] for name in wanted), tuple(wanted.values()))


def kernels(net, x, y):
    """The results of the functions of networks; the last two take real steps."""
    ours = functional
    return (
        ours.gradient_kernel(net, x),
        ours.gradient_kernel(net, x, outputs=net[-1].out_features),
        ours.relative_similarity(net, x, y),
        ours.kernelized_similarity(net, x, y),
        ours.relative_similarity(net, x, y, rate=1e-3),
        ours.kernelized_similarity(net, x, y, rate=1e-3),
    )


def changes_by_steps(net, x, y, rate):
    """Minus the changes of all outputs by a step on each sample, per unit of the rate."""
    before, moved = net(x).detach(), []
    for i in range(len(x)):
        stepped = copy.deepcopy(net)
        loss = torch.nn.functional.cross_entropy(stepped(x[i : i + 1]), y[i : i + 1])
        loss.backward()
        torch.optim.SGD(stepped.parameters(), rate).step()
        moved.append((before - stepped(x).detach()) / rate)
    return torch.stack(moved)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_compared_as_backward_passes_do_one_by_one(layout):
    images, y = networks.small_images(3, each=2)
    x, net = images.double(), networks.convnet(classes=3).double().eval()
    g, v = expected.gradients(net, x), expected.loss_gradients(net(x).detach(), y)
    moved, stepped = expected.changes(g, v), changes_by_steps(net, x, y, rate=1e-3)
    wanted = (
        expected.kernel(g),
        expected.kernel(g),
        expected.relative_similarity(moved),
        expected.kernelized_similarity(moved, v),
        expected.relative_similarity(stepped),
        expected.kernelized_similarity(stepped, v),
    )
    on_device = copy.deepcopy(net).to(device(), memory_format=layout)
    found = kernels(on_device, x.to(device(), memory_format=layout), y.to(device()))
    assert_equal(found[:4], wanted[:4])
    assert_equal(found[4:], wanted[4:], rel=1e-7)  # differences of outputs, divided by a small rate


def test_gradients_of_recurrent_layers_are_those_of_the_cpu():
    x, net = clusters(3, 2, d=6)[0].double(), networks.recurrent(classes=3).double().eval()
    wanted = expected.kernel(expected.gradients(net, x))
    on_device = copy.deepcopy(net).to(device())
    with pytest.warns(RuntimeWarning, match="for each sample"):
        found = functional.gradient_kernel(on_device, x.to(device()))
    assert_equal(found, wanted)


def test_gradients_in_float32_do_not_depend_on_tf32_and_are_near():
    images, y = networks.small_images(3, each=2)
    net = networks.convnet(classes=3).eval()
    exact = expected.kernel(expected.gradients(copy.deepcopy(net).double(), images.double()))
    on_device, x, y = net.to(device()), images.to(device()), y.to(device())
    torch.use_deterministic_algorithms(True)  # for the network's own backward passes
    found = []
    for allowed in (True, False):
        with tensor_float_32(allowed):
            found.append(kernels(on_device, x, y)[0].cpu())
    assert torch.equal(*found)
    assert_equal(found[0], exact, rel=1e-4)
