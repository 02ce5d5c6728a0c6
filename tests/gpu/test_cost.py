"""Tests of the timing code itself: guarded rows, waits, products and networks."""

import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from tests.gpu import products, subjects, syncs
from tests.gpu.cost_of_measuring import Cost
from tests.gpu.device import only_our_warnings
from tests.gpu.lines import read
from tests.gpu.rows import Rows

pytestmark = only_our_warnings


def test_a_row_that_fails_or_takes_too_long_is_a_row_with_its_cause(tmp_path):
    rows = Rows(tmp_path / "rows", seconds=20, each=0.3)

    def fail():
        raise torch.OutOfMemoryError("no room\nat all")

    def wait():
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                time.sleep(0.05)
            except Exception:
                continue  # as the code under test may do

    rows.add("s", "n", "fails", fail)
    rows.add("s", "n", "waits", wait)
    rows.add("s", "n", "works", lambda: {"seconds": 1.5})
    rows.end = time.monotonic()
    rows.add("s", "n", "late", lambda: {"seconds": 1.5})
    found = {row["what"]: (row["numbers"], row["cause"]) for row in read(tmp_path / "rows")}
    assert found["fails"] == ({}, "OutOfMemoryError: no room")
    assert found["waits"] == ({}, "given up after 0 s")
    assert found["works"] == ({"seconds": 1.5}, None)
    assert found["late"][1].startswith("not measured")


def wait_for_the_device(times):
    for _ in range(times):
        warnings.warn(f"{syncs.SAID} (of C++)", stacklevel=1)


def test_waits_are_counted_by_the_line_that_waits():
    here = Path(__file__).parent

    def work(batches):
        wait_for_the_device(2)
        for _ in range(batches):
            wait_for_the_device(3)

    few, many = (syncs.places(lambda n=n: work(n), here, nullcontext) for n in (4, 8))
    (place,) = many
    assert place.startswith(f"{Path(__file__).name}:")
    assert (few[place], many[place]) == (14, 26)
    assert syncs.per_batch(few, many, batches=4) == {place: 3}
    assert syncs.beside(many, {place: 3}, batches=8) == {place: 2}
    elsewhere = syncs.places(lambda: work(1), here / "nowhere", nullcontext)
    assert elsewhere == {"outside": 5}


def test_products_of_float64_matrices_are_timed_and_no_others():
    a = torch.ones(64, 64)
    with products.ProductsTimed() as timed:
        a.double() @ a.double()
        torch.mm(a.double(), a.double(), out=torch.empty(64, 64, dtype=torch.float64))
        torch.zeros(64, 64, dtype=torch.float64).addmm_(a.double(), a.double())
        a @ a
    assert timed.count == 3
    assert timed.seconds() > 0


@pytest.mark.parametrize("number", range(4))
def test_each_network_is_measured_in_every_way(number, tmp_path):
    subject = subjects.small()[number]
    Cost(Rows(tmp_path / "rows", 60), subject).add_all()
    found = read(tmp_path / "rows")
    causes = {
        row["what"]: row["cause"] for row in found if row["cause"] and row["section"] != "waiting"
    }
    assert causes == {}
    measured = {row["what"] for row in found if row["section"] == "cost"}
    assert {"NeuralCollapse, cached", "EquiSeparation, not cached"} < measured
    for row in found:
        assert all(value >= 0 for value in row["numbers"].values() if not isinstance(value, str))


def test_large_networks_are_built_as_they_are_known(monkeypatch):
    sizes = {}
    for subject in subjects.large():
        with torch.device("meta"):
            sizes[subject.name.partition(",")[0]] = sum(
                p.numel() for p in subject.build().parameters()
            )
    # as published, except for the small stem, the number of classes and the head
    assert sizes == {
        "ResNet-18": 11_173_962,
        "ViT-B/16": 86_567_656,
        "ResNet-50": 25_557_032,
        "GPT-2 small": 124_439_808 + 20 * 768,
    }
