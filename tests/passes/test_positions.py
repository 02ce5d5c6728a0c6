"""Positions of sequences and images as samples: every value is that of features by hand."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

from lightning_nc import LocalElasticity
from lightning_nc.network.positions import Positions, at_positions, next_token
from lightning_nc.network.runner import plain_runner
from lightning_nc.passes import draw
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.geometry_pass import GeometryPass
from lightning_nc.passes.gradient_pass import GradientPass
from lightning_nc.passes.probe import Probe
from lightning_nc.passes.request import DoesNotApply, Request
from lightning_nc.passes.statistics import Statistic
from tests.passes import position_cases as cases
from tests.passes.position_cases import IGNORED, N, Pixels, Tokens, run, values
from tests.processes import run_processes

SIZES = [1, 2, 4, 5, N]  # of batches; T is 5, the rows of the head are 4


def assert_same(found, wanted, tolerance=1e-6):
    for key, value in wanted.items():
        total = found[key].sum() if key == "fuzziness" else found[key]
        value = torch.as_tensor(value).double()
        value = value.sum() if key == "fuzziness" else value
        torch.testing.assert_close(total.double(), value, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", ["plain", "classes first", "time first", "flattened"])
def test_each_token_with_a_label_is_a_sample(way, size):
    data = cases.tokens()
    _, answer = run(Tokens(way), data, batch_size=size)
    assert_same(values(answer), cases.of_tokens(Tokens(), data))
    assert int(answer.counts.sum()) == int((data.tensors[1] != IGNORED).sum())


class Convolved(Tokens):
    """The same by convolutions, so that channels come before tokens."""

    def __init__(self):
        super().__init__()
        for name in ("inner", "head"):
            linear = getattr(self, name)
            convolution = nn.Conv1d(linear.in_features, linear.out_features, 1)
            convolution.weight = nn.Parameter(linear.weight[..., None].detach())
            convolution.bias = linear.bias
            setattr(self, name, convolution)

    def forward(self, input_ids):
        return self.head(self.act(self.inner(self.embed(input_ids).transpose(1, 2))))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("length", [cases.T, cases.D, cases.D // 2])
def test_each_token_is_a_sample_also_where_channels_come_before_tokens(length, size):
    data = cases.tokens(t=length)
    _, answer = run(Convolved(), data, batch_size=size)
    assert_same(values(answer), cases.of_tokens(Tokens(), data))


def test_labels_that_are_the_tokens_themselves_are_told_once():
    ids = cases.tokens().tensors[0] % cases.R
    requests = Request(layers=["act"]), Request(classifier=True)
    told = []
    for labels in (ids, ids.roll(-1, 1)):
        data = TensorDataset(ids, labels)
        probe = Probe(data, "own", samples_per_class=None)
        runner, source = plain_runner(Tokens()), (lambda data=data: data)
        answers = GeometryPass(runner, source, probe, requests, Processes()).run()
        told.append([topic for answer in answers for topic in answer.notes])
    assert told == [["tokens"], []]


def test_tokens_that_are_their_own_labels_are_told_with_the_way_out():
    ids = cases.tokens().tensors[0] % cases.R
    kept = ids.masked_fill(ids == 0, IGNORED)
    _, answer = run(Tokens(), TensorDataset(ids, kept))
    assert "unpack=next_token" in answer.notes["tokens"]


def test_a_label_beyond_the_rows_is_told_to_be_ignored_perhaps():
    images, labels = cases.pixels().tensors
    labels = labels.masked_fill(labels == IGNORED, 255)
    data, request = TensorDataset(images, labels), Request(layers=["act"])
    _, answer = run(Pixels(), data, request=request)
    assert "label 255 has no row among the 4" in answer.notes["ignored"]
    assert "ignore_index=255" in answer.notes["ignored"]
    assert run(Pixels(), data, request=request, ignore_index=255)[1].notes == {}


def test_a_negative_label_is_told_to_be_ignored_perhaps_and_then_is():
    ids, labels = cases.tokens().tensors
    data = TensorDataset(ids, labels.masked_fill(labels == IGNORED, -1))
    with pytest.raises(ValueError, match=r"Label -1 of a position.*ignore_index=-1"):
        run(Tokens(), data)
    _, answer = run(Tokens(), data, ignore_index=-1)
    assert_same(values(answer), cases.of_tokens(Tokens(), cases.tokens()))


@pytest.mark.parametrize("request_", [{"needs_head": True}, {"head": "head"}, {}])
def test_of_a_head_over_several_pixels_the_input_is_measured(request_):
    class Wide(Pixels):
        def __init__(self):
            super().__init__()
            self.head = nn.Conv2d(cases.D, cases.R, 3, padding=1)

    if request_:
        with pytest.raises(DoesNotApply, match=r"'head' is a convolution over several .* pool="):
            run(Wide(), cases.pixels(), request=Request(classifier=True, **request_))
        return
    _, answer = run(Wide(), cases.pixels(), request=Request(classifier=True))
    _, narrow = run(Pixels(), cases.pixels(), request=Request(classifier=True))
    assert "is not logged" in answer.notes["rows"]
    assert answer.classifier.weight is None
    found, wanted = answer.classifier.features, narrow.classifier.features
    torch.testing.assert_close(found.means, wanted.means)


def test_items_of_several_crops_are_told_with_the_way_out():
    images, labels = cases.pixels(n=6).tensors
    two = TensorDataset(images.unflatten(0, (-1, 2)), labels.unflatten(0, (-1, 2)))

    def unpack(batch):
        return [part.flatten(0, 1) for part in batch]

    with pytest.raises(ValueError, match=r"3 samples came with 6 labels.* crops .*single ones"):
        run(Pixels(), two, batch_size=3, unpack=unpack)


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize(("factor", "flattened"), [(1, False), (1, True), (2, False)])
def test_each_pixel_with_a_label_is_a_sample_also_of_coarser_maps(factor, flattened, size):
    data, net = cases.pixels(), Pixels(factor, flattened)
    _, answer = run(net, data, batch_size=size)
    assert_same(values(answer), cases.of_pixels(net, data))


def test_masks_may_have_a_channel_of_their_own_and_be_floating_point():
    images, labels = cases.pixels().tensors
    wanted = cases.of_pixels(Pixels(), cases.pixels())
    for masks in (labels[:, None], labels[:, None].float(), labels.double()):
        _, answer = run(Pixels(), TensorDataset(images, masks))
        assert_same(values(answer), wanted)


def test_each_voxel_with_a_label_is_a_sample():
    class Voxels(nn.Module):
        """Pixels of layers that lie above one another."""

        def __init__(self):
            super().__init__()
            self.flat, self.act = Pixels(), nn.Sigmoid()
            self.head = nn.Conv3d(cases.D, cases.R, 1)
            self.head.weight.data = self.flat.head.weight.data[..., None]
            self.head.bias = self.flat.head.bias

        def forward(self, x):
            return self.head(self.act(torch.stack([*map(self.flat.inner, x.unbind(2))], 2)))

    images, labels = cases.pixels(n=8).tensors
    wanted = cases.of_pixels(Pixels(), TensorDataset(images, labels))
    volumes = images.unflatten(0, (4, 2)).transpose(1, 2)
    for masks in (labels.unflatten(0, (4, 2)), labels.unflatten(0, (4, 1, 2)).float()):
        _, answer = run(Voxels(), TensorDataset(volumes, masks), batch_size=3)
        assert_same(values(answer), wanted)


class ClassesLast(Pixels):
    def forward(self, x):
        return super().forward(x).movedim(1, -1)


@pytest.mark.parametrize(
    ("size", "of_pixels"),
    [
        ((cases.R, cases.R), Pixels),
        ((cases.R, cases.R), ClassesLast),
        ((6, cases.R), Pixels),
        ((cases.R, 6), ClassesLast),
    ],
)
def test_maps_as_wide_or_high_as_there_are_classes_are_read_along_their_classes(size, of_pixels):
    data = cases.pixels(size=size)
    _, answer = run(of_pixels(), data, batch_size=3)
    assert_same(values(answer), cases.of_pixels(Pixels(), data))


class Adjusted(Tokens):
    """Its output is not W h + b, and decides otherwise: logits are adjusted by class."""

    def forward(self, input_ids):
        rows = torch.arange(cases.R) / 10
        return super().forward(input_ids) + (rows[:, None] if self.way == "classes first" else rows)


@pytest.mark.parametrize(
    ("of_tokens", "size"), [(Tokens, 1), (Tokens, N), (Adjusted, 4), (Adjusted, N)]
)
@pytest.mark.parametrize("way", ["plain", "classes first"])
def test_sequences_of_as_many_tokens_as_classes_are_read_along_their_classes(of_tokens, way, size):
    data = cases.tokens(n=40, t=cases.R)
    _, answer = run(of_tokens(way), data, batch_size=size)
    by_class = 0.1 * torch.arange(cases.R) if of_tokens is Adjusted else 0
    assert_same(values(answer), cases.of_tokens(Tokens(), data, by_class))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("left", [False, True])
def test_padding_on_either_side_is_no_sample(left, size):
    data = cases.tokens()
    sequences = cases.Lengths(data)
    _, answer = run(Tokens(), sequences.loader(size, left))
    ids, labels = data.tensors
    ended = torch.arange(cases.T) >= sequences.lengths[:, None]
    wanted = cases.of_tokens(Tokens(), TensorDataset(ids, labels.masked_fill(ended, IGNORED)))
    assert_same(values(answer), wanted)


@pytest.mark.parametrize("left", [False, True])
def test_the_same_positions_are_drawn_on_either_side_of_padding(left):
    sequences = cases.Lengths(cases.tokens())
    right, _ = run(Tokens(), sequences.loader(3), samples_per_class=3)
    other, answer = run(Tokens(), sequences.loader(3, left), samples_per_class=3)
    assert cases.positions_of(other) == cases.positions_of(right)
    assert answer.counts.tolist() == [3] * cases.R


def test_a_draw_is_stratified_reproducible_and_of_a_seed():
    data = cases.tokens()
    first, answer = run(Tokens(), data, batch_size=3, samples_per_class=4)
    again, _ = run(Tokens(), data, batch_size=3, samples_per_class=4)
    other, _ = run(Tokens(), data, batch_size=3, samples_per_class=4, seed=1)
    drawn = cases.positions_of(first)
    assert answer.counts.tolist() == [4] * cases.R
    assert len(set(drawn)) == len(drawn) == 16
    assert cases.positions_of(again) == drawn
    assert cases.positions_of(other) != drawn
    labels = data.tensors[1]
    for item, rank, label in drawn:
        assert labels[item][labels[item] != IGNORED][rank] == label


def test_values_of_a_draw_are_those_of_its_positions():
    data = cases.tokens()
    one, answer = run(Tokens(), data, batch_size=3, samples_per_class=4)
    ids, labels = data.tensors
    kept = torch.full_like(labels, IGNORED)
    for item, rank, label in cases.positions_of(one):
        place = (labels[item] != IGNORED).nonzero().flatten()[rank]
        kept[item, place] = label
    assert_same(values(answer), cases.of_tokens(Tokens(), TensorDataset(ids, kept)))


def test_a_long_source_is_read_until_there_are_many_positions(monkeypatch):
    data, read = cases.tokens(n=400), []
    read_batches = draw.unpacked_batches

    def noted(*given):
        for batch in read_batches(*given):
            read.extend(batch[0].indices)
            yield batch

    monkeypatch.setattr(draw, "unpacked_batches", noted)

    def count(**options):
        read.clear()
        _, answer = run(Tokens(), data, batch_size=10, **options)
        return len(read), int(answer.counts.sum())

    everything = int((data.tensors[1] != IGNORED).sum())
    assert count() == (400, everything)
    # at least as many sequences as samples per class: positions of one are much alike
    assert count(samples_per_class=2) == (10, 2 * cases.R)
    assert count(samples_per_class=12) == (20, 12 * cases.R)
    monkeypatch.setattr(draw, "_MOST_POSITIONS", 100)
    reads, samples = count()
    assert 100 <= samples < 100 + 10 * cases.T
    assert samples / cases.T <= reads < 100
    # classes are named that the source does not complete
    reads, samples = count(samples_per_class=10**4)
    assert samples < 100 + 10 * cases.T
    assert reads < 100


@pytest.mark.parametrize(("first", "classes"), [(IGNORED, None), (IGNORED, [2, 3]), (0, [2, 3])])
def test_a_draw_goes_on_where_the_first_that_are_read_have_no_class_of_the_probe(first, classes):
    labels = torch.full((cases.N, cases.T), first)
    labels[7] = torch.arange(cases.T) % cases.R
    data = TensorDataset(cases.tokens().tensors[0], labels)
    _, answer = run(Tokens(), data, batch_size=1, samples_per_class=1, classes=classes)
    assert answer.labels.tolist() == (classes or [0, 1, 2, 3])
    assert answer.counts.tolist() == [1] * len(answer.labels)


def test_classes_are_complete_once_all_that_are_named_or_have_a_row_are():
    kept = draw._Candidates(quota=2)
    for new, complete in (([0, 0, 1], []), ([1, 4, 4], [2]), ([2], [2]), ([2, 3, 3], [2, 5])):
        of_no_item = torch.zeros(len(new), dtype=torch.long)
        kept.add(of_no_item, of_no_item, torch.tensor(new), torch.rand(len(new)))
        assert [rows for rows in (2, 5, 6) if kept.enough(None, rows)] == complete
        assert kept.enough(None, None) == kept.enough(None, 1) == (2 in complete)
        assert kept.enough([3, 0], 9) == (5 in complete)
        assert not kept.enough((0, 5), None)


def test_candidates_are_bounded_by_the_quota():
    kept = draw._Candidates(quota=3)
    random = torch.Generator().manual_seed(0)
    numbers = torch.rand(200, 50, generator=random)
    for item, row in enumerate(numbers):
        labels = torch.arange(50) % 2
        kept.add(torch.full((50,), item), torch.arange(50), labels, row)
        assert sum(len(parts[0]) for parts in kept._parts) <= 65 * 50
    items, ranks, labels, found = kept.joined()
    for k in range(2):
        of_class = numbers[:, k::2].flatten().sort().values[:3]
        assert torch.equal(found[labels == k].sort().values, of_class)
    assert torch.equal(numbers[items, ranks], found)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999), size=st.integers(1, 7), way=st.sampled_from(["plain", "flattened"])
)
def test_values_do_not_depend_on_batches(seed, size, way):
    data = cases.tokens(seed, n=7, t=3)
    _, whole = run(Tokens(), data, batch_size=7)
    _, parts = run(Tokens(way), data, batch_size=size)
    assert_same(values(parts), values(whole))


@settings(max_examples=60, deadline=None)
@given(
    B=st.integers(1, 4), H=st.integers(1, 4), W=st.integers(1, 4), by=st.integers(1, 3),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_features_are_found_where_labels_are(B, H, W, by, seed):
    random = torch.Generator().manual_seed(seed)
    targets = torch.randint(-1, 3, (B, H * by, W * by), generator=random)
    coarse = torch.randn(B, H, W, 2, generator=random)
    fine = coarse.repeat_interleave(by, 1).repeat_interleave(by, 2)
    found = Positions.of(targets, -1)
    kept = targets != -1
    assert torch.equal(found.labels(targets), targets[kept])
    assert torch.equal(at_positions(coarse, found), fine[kept])
    assert torch.equal(at_positions(fine.flatten(0, 2), found), fine[kept])


@pytest.mark.parametrize("by", [1, 2, 3])
def test_features_of_coarser_and_finer_sequences_are_found_where_labels_are(by):
    h = torch.randn(2, 4, 3)
    every = Positions.of(torch.zeros(2, 4 * by).long(), -1)
    assert torch.equal(at_positions(h, every), h.repeat_interleave(by, 1).flatten(0, 1))
    finer = h.repeat_interleave(by, 1)
    assert torch.equal(
        at_positions(finer, Positions.of(torch.zeros(2, 4).long(), -1)), h.flatten(0, 1)
    )


def test_a_sequence_that_has_lost_a_label_is_refused_and_not_read_in_the_next_one():
    before, now = torch.tensor([[5, 7], [5, 6], [1, 2]]), torch.tensor([[5, 7], [5, -1], [1, 2]])
    second = torch.tensor([0, 1, 2]), torch.tensor([1, 1, 1])
    assert Positions.of(before, -1, *second).labels(before).tolist() == [7, 6, 2]
    with pytest.raises(ValueError, match="fewer labelled positions than it had before"):
        Positions.of(now, -1, *second)


@pytest.mark.parametrize("shape", [(6, 2), (3, 2)])
def test_a_vector_per_sequence_is_not_taken_for_positions(shape):
    found = Positions.of(torch.zeros(6, 3).long(), -1)
    with pytest.raises(ValueError, match="no axes for the"):
        at_positions(torch.zeros(shape), found)


def test_a_pool_of_positions_may_take_the_inputs():
    data, shapes = cases.tokens(), []

    def doubled(states, ids):
        shapes.append((states.shape[:2], ids.shape))
        return 2 * states

    _, answer = run(Tokens(), data, request=Request(layers=["act"], pool=doubled))
    _, plain = run(Tokens(), data, request=Request(layers=["act"]))
    assert all(of_states == of_ids for of_states, of_ids in shapes)
    torch.testing.assert_close(answer.layers["act"].means, 2 * plain.layers["act"].means)


def test_a_pool_that_leaves_no_positions_is_named():
    request = Request(layers=["act"], pool=lambda states: states.mean(1))
    with pytest.raises(ValueError, match=r"pool of layer 'act' .* no axes .* Leave pool= out"):
        run(Tokens(), cases.tokens(), request=request)


@pytest.mark.parametrize("dtype", [torch.long, torch.int32])
def test_several_classes_per_sample_are_still_refused(dtype):
    x = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, (x[:, :4] > 0).to(dtype))
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(ValueError, match="multi-label"):
        run(net, data, request=Request(classifier=True))


def test_local_elasticity_refuses_positions_in_a_sentence():
    request = LocalElasticity().measure.request()
    probe = Probe(cases.tokens(), "own")
    (answer,) = GradientPass(
        plain_runner(Tokens()), lambda: probe.source, probe, [request], Processes()
    ).run()
    assert "labels are of positions" in str(answer)


def test_a_source_of_ignored_positions_is_refused():
    ids, labels = cases.tokens().tensors
    with pytest.raises(ValueError, match="All positions are labelled -100"):
        run(Tokens(), TensorDataset(ids, torch.full_like(labels, IGNORED)))
    with pytest.raises(ValueError, match="All positions are labelled 2"):
        run(Tokens(), TensorDataset(ids, torch.full_like(labels, 2)), ignore_index=2)


def test_some_classes_of_positions_are_measured():
    data = cases.tokens()
    _, answer = run(Tokens(), data, classes=[3, 1])
    labels = data.tensors[1]
    assert answer.labels.tolist() == [1, 3]
    assert answer.counts.tolist() == [int((labels == 1).sum()), int((labels == 3).sum())]
    weight = Tokens().head.weight.double()
    assert torch.equal(answer.classifier.weight, weight[[1, 3]])


@pytest.mark.parametrize("left", [False, True])
def test_next_tokens_are_labels_and_padding_neither_predicts_nor_is_predicted(left):
    ids = cases.tokens().tensors[0] % cases.R
    mask = torch.arange(cases.T) < 1 + torch.arange(len(ids))[:, None] % cases.T
    mask = mask.fliplr() if left else mask
    data = [{"input_ids": i, "attention_mask": m.long()} for i, m in zip(ids, mask, strict=True)]
    _, answer = run(Tokens(), data, unpack=next_token)
    labels = torch.full_like(ids, IGNORED)
    labels[:, :-1] = torch.where(mask[:, 1:] & mask[:, :-1], ids[:, 1:], IGNORED)
    assert_same(values(answer), cases.of_tokens(Tokens(), TensorDataset(ids, labels)))


@pytest.mark.slow
def test_two_processes_measure_and_draw_what_one_does():
    alone = cases.run_all(0, 1)
    for found in run_processes(cases.run_all, 2):
        assert found.pop("batches") == alone["batches"]
        for case, wanted in found.items():
            assert_same(wanted, alone[case], tolerance=1e-12)
        for (case, first), (other, second) in pairwise(k for k in found if isinstance(k, tuple)):
            if case == other:
                assert_same(found[case, first], found[case, second])


class Kept(Statistic):
    """The features of all positions, and their labels behind them."""

    name, second_sweep = "kept", False

    def shape(self, K, d):
        return 60, d + 1

    def of(self, batch):
        rows = torch.cat([batch.features.double(), batch.labels[:, None].double()], 1)
        return (
            torch.zeros(self.shape(0, rows.shape[1] - 1)).double().index_copy(0, batch.places, rows)
        )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cache_mb", [512, 0])
def test_each_position_has_a_place_of_its_own(size, cache_mb):
    request = Request(layers=["act"], statistics=(Kept(),))
    options = {"request": request, "batch_size": size, "cache_mb": cache_mb}
    geometry = run(Tokens(), cases.tokens(), **options)[1].layers["act"]
    n = int(geometry.counts.sum())
    kept = geometry.statistics["kept"]
    rows, labels = kept[:n, :-1], kept[:n, -1]
    assert not kept[n:].any()
    for k, mean in enumerate(geometry.means):
        torch.testing.assert_close(rows[labels == k].mean(0), mean)
    expected = run(Tokens(), cases.tokens(), request=request, batch_size=N)[1].layers["act"]
    torch.testing.assert_close(kept, expected.statistics["kept"], rtol=1e-5, atol=1e-6)
