import pickle

import pytest
import torch

from lightning_nc.metrics import SweepState

SHAPES = {"counts": (3,), ("layer", 1): (3, 2), "total": ()}


def test_sums_start_at_zero_in_float64_with_their_shapes():
    state = SweepState(SHAPES)
    state.update("total", torch.tensor(0.0))
    sums = state.compute()
    assert {name: tuple(value.shape) for name, value in sums.items()} == SHAPES
    assert all(value.dtype == torch.float64 and not value.any() for value in sums.values())


def test_updates_add_up_each_in_its_place():
    state = SweepState(SHAPES)
    state.update("counts", torch.tensor([1, 0, 2]))
    state.update(("layer", 1), torch.arange(6).view(3, 2))
    state.update("counts", torch.tensor([0.25, 1.0, 0.0]))
    state.update("total", torch.tensor(7.0))
    sums = state.compute()
    assert sums["counts"].tolist() == [1.25, 1, 2]
    assert sums["layer", 1].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert sums["total"] == 7


def test_sums_are_views_of_one_vector():
    state = SweepState(SHAPES)
    state.update("total", torch.tensor(7.0))
    storage = state.flat.untyped_storage().data_ptr()
    assert state.flat.shape == (10,)
    assert all(state.view(name).untyped_storage().data_ptr() == storage for name in SHAPES)
    state.view("counts")[1] = 4
    assert state.flat[1] == 4
    assert state.compute()["counts"].tolist() == [0, 4, 0]


def test_what_was_computed_does_not_change_with_later_updates():
    state = SweepState(SHAPES)
    state.update("counts", torch.ones(3))
    computed = state.compute()
    state.update("counts", torch.ones(3))
    assert computed["counts"].tolist() == [1, 1, 1]


def test_one_all_reduce_adds_up_all_sums_and_the_local_ones_stay():
    calls = []

    def all_reduce(flat):
        calls.append(flat.clone())
        return flat.mul_(2)  # as if another process had the same

    state = SweepState(SHAPES, all_reduce)
    state.update("counts", torch.tensor([1.0, 2.0, 3.0]))
    state.update(("layer", 1), torch.ones(3, 2))
    sums = state.compute()
    assert sums["counts"].tolist() == [2, 4, 6]
    assert sums["layer", 1].tolist() == [[2, 2]] * 3
    assert len(calls) == 1
    assert state.flat[:3].tolist() == [1, 2, 3]
    state.update("counts", torch.tensor([1.0, 0.0, 0.0]))
    assert state.compute()["counts"].tolist() == [4, 4, 6]
    assert len(calls) == 2


def test_reset_starts_again_at_zero():
    state = SweepState(SHAPES)
    state.update("counts", torch.ones(3))
    state.reset()
    state.update("counts", torch.tensor([0.0, 0.0, 5.0]))
    assert state.compute()["counts"].tolist() == [0, 0, 5]


def test_names_and_shapes_are_fixed():
    state = SweepState(SHAPES)
    with pytest.raises(KeyError, match="mean"):
        state.update("mean", torch.ones(3))
    with pytest.raises(RuntimeError, match="must match the size"):
        state.update("counts", torch.ones(4))


def test_a_sweep_is_neither_stored_nor_in_a_checkpoint():
    state = SweepState(SHAPES)
    assert state.state_dict() == {}
    with pytest.raises(TypeError, match="not stored"):
        pickle.dumps(state)
