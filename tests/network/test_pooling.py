import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import lightning_nc
from lightning_nc import NeuralCollapse, measure
from lightning_nc.network.points import Point
from lightning_nc.network.pooling import Pooling, features_of, main_tensor

STATES = torch.arange(24.0).reshape(2, 4, 3)
RIGHT = {"attention_mask": torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])}
LEFT = {"attention_mask": torch.tensor([[0, 1, 1, 1], [0, 0, 0, 1]])}
LENGTHS = torch.tensor([3, 1])  # of the sequences of RIGHT
BARE = {"input_ids": torch.zeros(2, 4)}
POOLS = [lightning_nc.first_token, lightning_nc.masked_mean, lightning_nc.last_token]


def pooled(pool, states, inputs):
    return features_of(states, Point("layer", "layer", pool=pool), inputs, 2)


LOSS = torch.tensor(3.0)


@pytest.mark.parametrize(
    "output",
    [
        (None, STATES),
        (LOSS, STATES),
        (STATES, LOSS),
        [(LOSS, STATES), LOSS],
        {"loss": LOSS, "scores": STATES},
        {"loss": None, "scores": STATES},
    ],
)
def test_a_loss_or_nothing_is_passed_over(output):
    assert main_tensor(output) is STATES


@pytest.mark.parametrize("output", [LOSS, (LOSS,), {"loss": LOSS}])
def test_a_loss_alone_is_what_there_is(output):
    assert main_tensor(output) is LOSS


@pytest.mark.parametrize("output", [{}, {"levels": [STATES]}, ()])
def test_what_holds_no_tensor_itself_is_what_there_is(output):
    assert main_tensor(output) == output


def test_first_token_is_the_first_whatever_the_mask():
    for inputs in (RIGHT, LEFT, BARE, torch.zeros(2, 4)):
        assert torch.equal(pooled(lightning_nc.first_token, STATES, inputs), STATES[:, 0])


@pytest.mark.parametrize(
    ("inputs", "positions"),
    [
        (RIGHT, [2, 0]),
        (LEFT, [3, 3]),
        (BARE, [3, 3]),
        (None, [3, 3]),
        ({"x": STATES, "lengths": LENGTHS}, [2, 0]),
    ],
)
def test_last_token_is_the_last_of_the_mask_on_either_side(inputs, positions):
    expected = STATES[[0, 1], positions]
    assert torch.equal(pooled(lightning_nc.last_token, STATES, inputs), expected)


@pytest.mark.parametrize(
    ("inputs", "means"),
    [
        (RIGHT, [STATES[0, :3].mean(0), STATES[1, 0]]),
        (LEFT, [STATES[0, 1:].mean(0), STATES[1, 3]]),
        (BARE, [STATES[0].mean(0), STATES[1].mean(0)]),
        ({"mask": RIGHT["attention_mask"]}, [STATES[0, :3].mean(0), STATES[1, 0]]),
        ({"x": STATES, "lengths": LENGTHS}, [STATES[0, :3].mean(0), STATES[1, 0]]),
        ({"x": STATES.transpose(0, 1), "lengths": LENGTHS}, [STATES[0, :3].mean(0), STATES[1, 0]]),
        # lengths of other tokens than these, and numbers that are no lengths
        ({"x": STATES[:, 1:], "lengths": LENGTHS}, [*STATES.mean(1)]),
        ({"x": STATES, "lengths": torch.tensor([0.75, 0.25])}, [*STATES.mean(1)]),
        ({"x": STATES, "lengths": torch.tensor([[3], [1]])}, [*STATES.mean(1)]),
        # of truth values it is not known whether they are of tokens or of padding
        ({"mask": RIGHT["attention_mask"].bool()}, [STATES[0].mean(0), STATES[1].mean(0)]),
    ],
)
def test_masked_mean_leaves_padding_out(inputs, means):
    torch.testing.assert_close(pooled(lightning_nc.masked_mean, STATES, inputs), torch.stack(means))


@pytest.mark.parametrize(
    "inputs", [{"file": ["a", "b"], **RIGHT}, {"attention_mask": torch.tensor([[1, 0]] * 2)}]
)
def test_the_automatic_mean_takes_a_mask_only_if_it_is_of_these_tokens(inputs):
    pool = lightning_nc.masked_mean if "file" in inputs else (lambda states: states.mean(1))
    found = pooled(Pooling("tokens"), STATES, inputs)
    torch.testing.assert_close(found, pooled(pool, STATES, inputs))


def test_what_padding_holds_does_not_count_in_a_masked_mean():
    padded = STATES.clone()
    expected = pooled(lightning_nc.masked_mean, STATES, RIGHT)
    for held in (1e6, torch.nan):
        padded[0, 3] = held
        assert torch.equal(pooled(lightning_nc.masked_mean, padded, RIGHT), expected)


@pytest.mark.parametrize("mask", [{}, {"attention_mask": torch.ones(2, 2000)}])
def test_the_mean_of_many_tokens_does_not_overflow_in_half_precision(mask):
    states = torch.full((2, 2000, 3), 50.0).half()  # their sum is above 65504
    assert torch.equal(pooled(lightning_nc.masked_mean, states, mask), torch.full((2, 3), 50.0))


@pytest.mark.parametrize("pool", POOLS)
def test_pools_read_tuples_and_mappings(pool):
    expected = pooled(pool, STATES, RIGHT)
    assert torch.equal(pooled(pool, (STATES, None), RIGHT), expected)
    assert torch.equal(pooled(pool, {"last_hidden_state": STATES}, RIGHT), expected)


@pytest.mark.parametrize("pool", POOLS)
def test_pools_leave_what_is_pooled_already(pool):
    assert torch.equal(pooled(pool, STATES[:, 0], RIGHT), STATES[:, 0])


def test_a_pool_of_ones_own_sees_the_inputs_if_it_asks_for_them():
    def count(states, inputs):
        return states[:, 0] * inputs["attention_mask"].sum(1, keepdim=True)

    expected = STATES[:, 0] * torch.tensor([[3.0], [1.0]])
    assert torch.equal(pooled(count, STATES, RIGHT), expected)


def test_a_pool_that_needs_a_second_argument_gets_the_inputs_whatever_it_is_called():
    expected = STATES[:, 0] * torch.tensor([[3.0], [1.0]])

    def count(h, batch):
        return h[:, 0] * batch["attention_mask"].sum(1, keepdim=True)

    assert torch.equal(pooled(count, STATES, RIGHT), expected)
    assert torch.equal(pooled(lambda h, axis=1: h.sum(axis), STATES, RIGHT), STATES.sum(1))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.parametrize("sparse", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr])
@pytest.mark.parametrize("pool", ["flatten", Pooling(), lambda h: 2 * h])
def test_sparse_tensors_are_read_with_their_zeros(sparse, pool):
    h = torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]])
    expected = 2 * h if callable(pool) and not isinstance(pool, Pooling) else h
    assert torch.equal(pooled(pool, sparse(h), None), expected)


def test_a_pool_is_not_applied_to_a_classifier_input_that_is_pooled_by_the_network():
    point = Point("input of head", "head", side="input", pool=lambda states: states.mean(1))
    assert torch.equal(features_of(STATES[:, 0], point, RIGHT, 2), STATES[:, 0])
    assert torch.equal(features_of(STATES, point, RIGHT, 2), STATES.mean(1))


def test_a_pool_that_leaves_no_sample_is_told():
    with pytest.raises(ValueError, match=r"shape \(\) for 2 samples, but the first axis"):
        pooled(torch.mean, STATES, None)


def test_modules_can_be_pools():
    assert torch.equal(pooled(torch.nn.Flatten(), STATES, None), STATES.flatten(1))


def test_a_pool_is_asked_for_the_input_of_a_head_whose_rows_are_not_samples():
    """As where a network puts tokens on the axis of samples before its head."""

    class LastToken(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(x.flatten(0, 1)).view(len(x), 6, 3)[:, -1]

    x, y, network = torch.randn(30, 6, 4), torch.arange(30) % 3, LastToken()

    def last(h):
        return h.view(-1, 6, 4)[:, -1]

    found = measure(network, TensorDataset(x, y), measures=[NeuralCollapse(pool=last)])
    expected = measure(network.head, TensorDataset(x[:, -1], y), measures=[NeuralCollapse()])
    assert found.values == pytest.approx(expected.values, rel=1e-6)


@pytest.mark.parametrize("alone", [0, 1, 2])
def test_a_graph_without_edges_has_no_mean_over_them(alone):
    batch = torch.arange(3).repeat_interleave(torch.where(torch.arange(3) == alone, 1, 2))
    first = torch.cat([(batch == graph).nonzero()[:1, 0] for graph in range(3) if graph != alone])
    inputs = {"batch": batch, "edge_index": torch.stack([first, first + 1])}
    nodes = torch.arange(5.0)[:, None]
    means = torch.stack([nodes[batch == graph].mean(0) for graph in range(3)])
    assert torch.equal(Pooling("nodes")(nodes, inputs), means.double())
    with pytest.raises(ValueError, match=rf"^Graph {alone} of a batch has no edges.*pool="):
        Pooling("edges")(torch.ones(2, 4), inputs)
