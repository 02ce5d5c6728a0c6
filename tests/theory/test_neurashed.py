import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lightning_nc.theory.neurashed import Neurashed, expected_amplification

TYPES = ("12", "45", "23", "56")  # of each class


def animals(depth, growth=1, decay=0):
    """All share A, with 2 children; tiger and cat also B, with 3, and a node at each deeper level.

    At these levels plane has two nodes of its own.
    """
    children = {"A": "12", "B": "345", "T": "6", "C": "7", "P": "8"}
    children = {node: [f"input {x}" for x in below] for node, below in children.items()}
    levels = [{x: () for below in children.values() for x in below}, children]
    path = {"tiger": ["A", "B", "T"], "cat": ["A", "B", "C"], "plane": ["A", "P"]}
    pathways = {
        kind: [x for node in nodes for x in children[node]] + nodes for kind, nodes in path.items()
    }
    for d in range(depth):
        level = {f"animal{d}": [node for node in path["cat"] if node in path["tiger"]]}
        for kind in ("tiger", "cat"):
            (own,) = (node for node in path[kind] if node not in level[f"animal{d}"])
            level[f"{kind}{d}"] = [own]
            path[kind] = [f"animal{d}", f"{kind}{d}"]
        level |= {f"wing{d}": path["plane"], f"hull{d}": path["plane"]}
        path["plane"] = [f"wing{d}", f"hull{d}"]
        levels.append(level)
        pathways = {kind: pathways[kind] + nodes for kind, nodes in path.items()}
    levels.append(dict(path))
    pathways = {kind: [*nodes, kind] for kind, nodes in pathways.items()}
    return Neurashed(levels, pathways, growth, decay)


def two_classes(growth=1, decay=0.01):
    """Types activate the pairs 12, 23, 45 and 56 of six features of their class."""
    levels, pathways = [{}, {}, {}], {}
    for c in "xy":
        halves = {c + "left": "123", c + "right": "456", c + "main": "123456"}
        levels[0] |= {c + i: () for i in "123456"}
        levels[1] |= {half: [c + i for i in features] for half, features in halves.items()}
        levels[2][c] = list(halves)
        for pair in TYPES:
            half = "left" if "2" in pair else "right"
            pathways[c + pair] = [c + pair[0], c + pair[1], c + half, c + "main", c]
    return Neurashed(levels, pathways, growth, decay)


def lambda_of(neurashed, node):
    for names, lambda_ in zip(neurashed.graph.levels, neurashed.amplification, strict=True):
        if node in names:
            return float(lambda_[names.index(node)])
    raise KeyError(node)


def test_it_starts_without_any_ability():
    neurashed = animals(2)
    for value in neurashed.values("cat")[1:]:
        assert_allclose(value, 0)
    assert_allclose(neurashed.probabilities("cat"), 1 / 3)


def test_a_value_is_the_amplification_times_the_sum_of_the_childrens_values():
    levels = [
        {"a": (), "b": (), "c": ()},
        {"ab": "ab", "bc": "bc"},
        {"K": ["ab"], "L": ["ab", "bc"]},
    ]
    neurashed = Neurashed(levels, {"k": ["a", "b", "ab", "K"], "l": ["b", "c", "bc", "L"]}, 1, 0)
    neurashed.amplification = [
        torch.tensor(each, dtype=torch.float64)
        for each in ([2.0, 3.0, 5.0], [7.0, 11.0], [1.0, 0.1])
    ]
    first, second, logits = neurashed.values("k")
    assert_allclose(first, [1, 1, 0])  # whatever their amplifications
    assert_allclose(second, [7 * (1 + 1), 0])  # bc is not activated, though b is
    assert_allclose(logits, [14, 1.4])
    assert_allclose(neurashed.logits("l"), [0, 0.1 * 11 * (1 + 1)])
    assert_allclose(neurashed.probabilities("k")[0], 1 / (1 + math.exp(1.4 - 14)))


def test_a_step_strengthens_what_its_batch_activates_and_weakens_the_rest():
    neurashed = two_classes(growth=2, decay=0.25)
    neurashed.step("x12")
    neurashed.step("x23", "y45")
    expected = {
        "x1": 1.5,
        "x2": 4,
        "x3": 2,
        "x4": 0,
        "y4": 2,
        "xleft": 4,
        "xright": 0,
        "x": 4,
        "y": 2,
    }
    assert {node: lambda_of(neurashed, node) for node in expected} == expected


@given(st.lists(st.sampled_from(["tiger", "cat", "plane"]), min_size=1), st.randoms())
def test_neither_order_nor_repetition_in_a_batch_makes_a_difference(batch, random):
    one, other = animals(2, decay=0.5), animals(2, decay=0.5)
    shuffled = batch + batch[:2]
    random.shuffle(shuffled)
    one.step(*batch)
    other.step(*shuffled)
    for a, b in zip(one.amplification, other.amplification, strict=True):
        assert torch.equal(a, b)


@given(st.lists(st.sampled_from(["tiger", "cat", "plane"]), max_size=30))
def test_amplification_stays_between_zero_and_one_growth_per_step(steps):
    neurashed = animals(3, growth=0.5, decay=0.3)
    for kind in steps:
        neurashed.step(kind)
    for lambda_ in neurashed.amplification:
        assert bool((lambda_ >= 0).all())
        assert bool((lambda_ <= 0.5 * len(steps)).all())


def own_logits(neurashed):
    """The logit that each type gives its own class."""
    return [float(neurashed.logits(kind)[c]) for c, kind in enumerate(neurashed.graph.types)]


def rises(depth, N, logits_of=own_logits):
    """What a step on tiger adds to the logits of cat and plane after N steps on each type."""
    neurashed = animals(depth)
    for kind in ("tiger", "cat", "plane") * N:
        neurashed.step(kind)
    _, *before = logits_of(neurashed)
    neurashed.step("tiger")
    _, *after = logits_of(neurashed)
    return [now - then for now, then in zip(after, before, strict=True)]


@pytest.mark.parametrize("N", [1, 2, 3, 10, 200])
def test_a_step_on_tiger_raises_cat_and_plane_as_5_to_2_however_long_training_was(N):
    assert rises(0, N) == [5 * N, 2 * N]


@pytest.mark.parametrize("N", [1, 200])
def test_if_the_first_level_were_amplified_too_it_would_not_be_5_to_2(N):
    def amplified(neurashed):
        original, lambda_ = neurashed.graph.children[0], neurashed.amplification[0]
        neurashed.graph.children[0] = original * lambda_
        logits = own_logits(neurashed)
        neurashed.graph.children[0] = original
        return logits

    # 2 (3 N + 1)^2 + 3 (2 N + 1)^2 - 30 N^2 and 2 (3 N + 1)^2 - 18 N^2, times N
    assert rises(0, N, amplified) == [N * (24 * N + 5), N * (12 * N + 2)]


@pytest.mark.parametrize("N", [1, 3, 50])
def test_the_deeper_the_more_a_step_on_tiger_raises_cat_against_plane(N):
    ratios = []
    for d in range(5):
        cat, plane = rises(d, N)
        assert cat == N * ((2 * N + 1) ** d * (12 * N + 5) - (2 * N) ** d * 12 * N)
        assert plane == N * (2 * N) ** d * 2
        ratios.append(cat / plane)
    assert_allclose(ratios[1], ((1 + 1 / (2 * N)) * (12 * N + 5) - 12 * N) / 2)
    assert all(deeper > ratio + 3 for ratio, deeper in pairwise(ratios))
    if N == 50:
        assert_allclose(ratios, [2.5, 5.5, 8.5, 11.5, 14.5], rtol=0.05)


def test_training_on_all_types_learns_to_predict_them():
    neurashed = animals(2)
    for _ in range(3):
        neurashed.step("tiger", "cat", "plane")
    for c, kind in enumerate(neurashed.graph.types):
        assert neurashed.probabilities(kind)[c] > 0.99
        assert_allclose(neurashed.probabilities(kind).sum(), 1)


def test_with_full_batches_rare_features_grow_as_common_ones_do():
    neurashed = two_classes()
    for _ in range(25):
        neurashed.step(*neurashed.graph.types)
    for lambda_ in neurashed.amplification:
        assert_allclose(lambda_, 25)


def test_with_single_samples_common_features_grow_faster_than_rare_ones():
    neurashed = two_classes(decay=0.001)
    cycle = [c + pair for pair in TYPES for c in "xy"]
    kinds = {"xmain": 1 / 2, "x2": 1 / 4, "x1": 1 / 8}
    for kind in cycle:
        neurashed.step(kind)
    start = [lambda_of(neurashed, node) for node in kinds]
    assert_allclose(start, [4, 2, 1], rtol=0.01)
    for kind in cycle * 1999:
        neurashed.step(kind)
    end = [lambda_of(neurashed, node) for node in kinds]
    assert_allclose(end, [1000, 1000 / 3, 1000 / 7], rtol=0.01)
    expected = [expected_amplification(p, 16000, 1, 0.001) for p in kinds.values()]
    assert_allclose(end, expected, rtol=0.01)


def test_two_types_in_turn_leave_their_common_feature_at_t_and_rare_ones_at_most_at_a_by_b():
    levels = [{"common": (), "one": (), "other": ()}, {"K": ["common", "one", "other"]}]
    neurashed = Neurashed(
        levels, {"A": ["common", "one", "K"], "B": ["common", "other", "K"]}, 1, 0.5
    )
    for kind in "ABAB":
        neurashed.step(kind)
    assert_allclose(neurashed.amplification[0], [4, 0.75, 1.5])
    for kind in "AB" * 50:
        neurashed.step(kind)
    assert_allclose(neurashed.amplification[0], [104, 1, 2])  # after its own step a + (1 - b) / b


@given(st.floats(0, 1), st.integers(0, 40), st.floats(0.01, 10), st.floats(0, 1))
def test_expected_amplification_is_that_of_its_recursion(p, steps, a, b):
    expected = 0.0
    for _ in range(steps):
        expected = p * (expected + a) + (1 - p) * (1 - b) * expected
    assert_allclose(expected_amplification(p, steps, a, b), expected, rtol=1e-9, atol=1e-12)


def test_expected_amplification_of_a_node_that_is_hardly_ever_activated():
    # with b = 1 what remains after a step is the amplification by that step
    assert expected_amplification(1e-300, 5, growth=2, decay=1) == 2e-300
    assert expected_amplification(1e-300, 0, growth=2, decay=1) == 0


def test_expected_amplification_is_the_mean_over_random_batches():
    levels = [{"often": (), "seldom": ()}, {"K": ["often", "seldom"]}]
    pathways = {kind: ["often", "K"] for kind in "abc"} | {"d": ["seldom", "K"]}
    total = torch.zeros(2, dtype=torch.float64)
    drawn = torch.randint(4, (300, 30), generator=torch.Generator().manual_seed(0)).tolist()
    for run in drawn:
        neurashed = Neurashed(levels, pathways, growth=1, decay=0.1)
        for kind in run:
            neurashed.step("abcd"[kind])
        total += neurashed.amplification[0]
    expected = [expected_amplification(p, 30, 1, 0.1) for p in (3 / 4, 1 / 4)]
    assert_allclose(total / 300, expected, rtol=0.05)


def test_rare_nodes_fade_and_with_them_the_bits_that_they_carried():
    neurashed = two_classes()
    assert neurashed.bits(0.4).tolist() == [3, 2, 1]
    history = []
    for _ in range(150):
        for pair in TYPES:
            neurashed.step("x" + pair, "y" + pair)
        history.append(neurashed.bits(0.4).tolist())
    assert history[0] == [3, 2, 1]
    assert history[-1] == [2, 1, 1]
    for bits, later in pairwise(history):
        assert all(now >= then for now, then in zip(bits, later, strict=True))
    bottom, middle = (
        4 * next(i for i, bits in enumerate(history, 1) if bits[level] == history[-1][level])
        for level in (0, 1)
    )
    assert_allclose(middle, 0.928 / 0.01, rtol=0.1)
    assert_allclose(bottom, 2.331 / 0.01, rtol=0.1)


def test_no_bit_is_lost_with_full_batches():
    neurashed = two_classes()
    for _ in range(600):
        neurashed.step(*neurashed.graph.types)
    assert neurashed.bits(1.0).tolist() == [3, 2, 1]


@given(st.lists(st.sampled_from([c + pair for c in "xy" for pair in TYPES]), max_size=40))
def test_a_higher_threshold_leaves_no_more_bits(steps):
    neurashed = two_classes(decay=0.2)
    for kind in steps:
        neurashed.step(kind)
    ordered = torch.stack([neurashed.bits(t) for t in (0.0, 0.1, 0.3, 0.5, 0.9, 1.0)])
    assert ordered[0].tolist() == [3, 2, 1]
    assert bool((ordered.diff(dim=0) <= 0).all())
    assert bool((ordered >= 0).all())


LEVELS = [{"a": (), "b": ()}, {"K": ["a"], "L": ["b"]}]
PATHWAYS = {"k": ["a", "K"], "l": ["b", "L"]}


@pytest.mark.parametrize(
    ("levels", "pathways", "said"),
    [
        ([{"K": ()}], {"k": ["K"]}, r"levels of \[1\] nodes"),
        ([{}, {"K": ()}], {"k": ["K"]}, r"levels of \[0, 1\] nodes"),
        ([{"a": ()}, {"a": ["a"]}], {"k": ["a"]}, r"give \['a'\] another name"),
        ([{"a": ["b"], "b": ()}, {"K": ["a"]}], PATHWAYS, r"\['b'\] of 'a' in level 1"),
        ([{"a": ()}, {"m": ["a"]}, {"K": ["a"]}], PATHWAYS, r"\['a'\] of 'K' in level 3"),
        ([{"a": ()}, {"K": ()}], PATHWAYS, "'K' in level 2 has no children"),
        (LEVELS, {}, "no pathways"),
        (LEVELS, {"k": ["a", "z", "K"]}, r"'k' has \['z'\]"),
        (LEVELS, {"k": ["a"]}, r"that of 'k' has \[\]"),
        (LEVELS, {"k": ["a", "b", "K", "L"]}, r"that of 'k' has \['K', 'L'\]"),
        (LEVELS, {"k": ["b", "K"]}, r"'k' activates 'K' but none of its children \['a'\]"),
    ],
)
def test_what_is_no_graph_with_pathways_is_refused(levels, pathways, said):
    with pytest.raises(ValueError, match=said):
        Neurashed(levels, pathways, growth=1, decay=0.1)


@pytest.mark.parametrize("growth", [0, -1, math.inf, math.nan])
def test_growth_is_positive_and_finite(growth):
    with pytest.raises(ValueError, match=f"got {growth}"):
        Neurashed(LEVELS, PATHWAYS, growth, decay=0.1)
    with pytest.raises(ValueError, match=f"got {growth}"):
        expected_amplification(0.5, 1, growth, 0.1)


@pytest.mark.parametrize("decay", [-0.1, 1.1, math.nan])
def test_decay_is_a_share(decay):
    with pytest.raises(ValueError, match=f"got {decay}"):
        Neurashed(LEVELS, PATHWAYS, 1, decay)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_a_threshold_is_a_share(threshold):
    with pytest.raises(ValueError, match=f"got {threshold}"):
        Neurashed(LEVELS, PATHWAYS, 1, 0.1).bits(threshold)


def test_unknown_types_and_empty_batches_are_refused():
    neurashed = Neurashed(LEVELS, PATHWAYS, 1, 0.1)
    with pytest.raises(ValueError, match=r"no sample type 'm'; there are \['k', 'l'\]"):
        neurashed.step("k", "m")
    with pytest.raises(ValueError, match="no sample type 'm'"):
        neurashed.logits("m")
    with pytest.raises(ValueError, match="got none"):
        neurashed.step()
    assert_allclose(torch.cat(neurashed.amplification), 0)


@pytest.mark.parametrize(
    ("p", "steps", "said"),
    [(-0.1, 1, "p = -0.1"), (1.1, 1, "p = 1.1"), (0.5, -1, "-1"), (0.5, math.nan, "nan")],
)
def test_expected_amplification_of_what_is_no_probability_is_refused(p, steps, said):
    with pytest.raises(ValueError, match=said):
        expected_amplification(p, steps, 1, 0.1)
