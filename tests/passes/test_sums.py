import pytest
import torch

from lightning_nc.passes.sums import Sums

SHAPES = {"counts": (3,), ("layer", 1): (3, 2), "total": ()}


def test_sums_start_at_zero_in_float64_with_their_shapes():
    totals = Sums(SHAPES).over_processes()
    assert {name: tuple(value.shape) for name, value in totals.items()} == SHAPES
    assert all(value.dtype == torch.float64 and not value.any() for value in totals.values())


def test_values_add_up_each_in_its_place():
    sums = Sums(SHAPES)
    sums.add("counts", torch.tensor([1, 0, 2]))
    sums.add(("layer", 1), torch.arange(6).view(3, 2))
    sums.add("counts", torch.tensor([0.25, 1.0, 0.0]))
    sums.add("total", torch.tensor(7.0))
    totals = sums.over_processes()
    assert totals["counts"].tolist() == [1.25, 1, 2]
    assert totals["layer", 1].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert totals["total"] == 7


def test_sums_are_views_of_one_vector():
    sums = Sums(SHAPES)
    sums.add("total", torch.tensor(7.0))
    storage = sums.flat.untyped_storage().data_ptr()
    assert sums.flat.shape == (10,)
    assert all(sums.view(name).untyped_storage().data_ptr() == storage for name in SHAPES)
    sums.view("counts")[1] = 4
    assert sums.flat[1] == 4
    assert sums.over_processes()["counts"].tolist() == [0, 4, 0]


def test_what_was_added_up_does_not_change_with_later_values():
    sums = Sums(SHAPES)
    sums.add("counts", torch.ones(3))
    totals = sums.over_processes()
    with pytest.raises(KeyError, match="counts"):
        sums.add("counts", torch.ones(3))
    assert totals["counts"].tolist() == [1, 1, 1]


def test_one_all_reduce_adds_up_all_sums():
    calls = []

    def all_reduce(flat):
        calls.append(flat.clone())
        return flat * 2  # as if another process had the same

    sums = Sums(SHAPES)
    sums.add("counts", torch.tensor([1.0, 2.0, 3.0]))
    sums.add(("layer", 1), torch.ones(3, 2))
    totals = sums.over_processes(all_reduce)
    assert totals["counts"].tolist() == [2, 4, 6]
    assert totals["layer", 1].tolist() == [[2, 2]] * 3
    assert len(calls) == 1
    assert calls[0][:3].tolist() == [1, 2, 3]


def test_names_and_shapes_are_fixed():
    sums = Sums(SHAPES)
    with pytest.raises(KeyError, match="mean"):
        sums.add("mean", torch.ones(3))
    with pytest.raises(RuntimeError, match="must match the size"):
        sums.add("counts", torch.ones(4))
