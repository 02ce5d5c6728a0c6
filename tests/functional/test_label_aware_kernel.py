import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from numpy.testing import assert_allclose

from lightning_nc.functional import fit_pair_features, fit_random_features, label_aware_kernel
from lightning_nc.functional.label_aware_kernel import PairFeatureRegression


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def two_classes(n, d=4, distance=1.0, seed=0):
    """n samples of each of two classes, labelled -1 and 1, and the kernel of a linear network."""
    y = torch.tensor([-1, 1]).repeat_interleave(n)
    x = normal(2 * n, d, seed=seed)
    x[:, 0] += distance * y
    return x, y, x @ x.mT + 1


def ordered_pairs(n):
    return [(i, j) for i in range(n) for j in range(n) if i != j]


def relative_ratio(K, y):
    """The strength of local elasticity, pair by pair from its definition."""
    normalised = {
        (i, j): float(K[i, j] / (K[i, i] * K[j, j]).sqrt()) for i, j in ordered_pairs(len(y))
    }
    same = [value for (i, j), value in normalised.items() if y[i] == y[j]]
    different = [value for (i, j), value in normalised.items() if y[i] != y[j]]
    same_mean, different_mean = sum(same) / len(same), sum(different) / len(different)
    assert min(same_mean, different_mean) > 0
    return same_mean / (same_mean + different_mean)


def test_the_kernel_is_normalised_before_labels_are_added():
    K = torch.tensor([[4.0, 2.0, 1.0], [2.0, 1.0, 0.0], [1.0, 0.0, 9.0]])
    Z = torch.tensor([[0.5, 1.0, -1.0], [1.0, 0.5, 0.0], [-1.0, 0.0, 0.5]])
    normalised = torch.tensor([[1, 1, 1 / 6], [1, 1, 0], [1 / 6, 0, 1]], dtype=torch.float64)
    known = torch.tensor([[1, 1, -1], [1, 1, 0], [-1, 0, 1]])  # on the diagonal 1 for certain
    assert_allclose(label_aware_kernel(K, Z), normalised + known, atol=1e-7)
    assert_allclose(label_aware_kernel(K, Z, weight=0), normalised, atol=1e-7)
    assert_allclose(label_aware_kernel(K, Z, weight=3), normalised + 3 * known, atol=1e-7)
    assert Z[0, 0] == 0.5  # what is given is not written to


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=4, max_size=4))
def test_the_scale_of_a_sample_does_not_matter(scales):
    _, y, K = two_classes(2)
    Z = torch.outer(y, y).double()
    s = torch.tensor(scales, dtype=torch.float64)
    assert_allclose(label_aware_kernel(s[:, None] * K * s, Z), label_aware_kernel(K, Z), rtol=1e-9)


def test_a_sample_without_a_kernel_is_nan():
    K = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    found = label_aware_kernel(K, torch.zeros(2, 2))
    assert found.isnan().tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize(("K", "Z"), [((2, 3), (2, 3)), ((2, 2), (3, 3)), ((2,), (2, 2))])
def test_kernels_and_label_products_that_do_not_match_are_refused(K, Z):
    with pytest.raises(ValueError, match="of the same samples"):
        label_aware_kernel(torch.ones(K), torch.ones(Z))


@pytest.mark.parametrize("ridge", [1e-6, 0.3])
def test_pair_features_are_fitted_as_one_regression_over_all_pairs(ridge):
    x, y, K = two_classes(4)
    K = K + 0.1 * torch.outer(x[:, 1], x[:, 1]) ** 2  # not a function of the inner product
    pairs = ordered_pairs(8)
    z = torch.stack(
        [torch.stack([x[i] @ x[j], (x[i] - x[j]).square().sum(), K[i, j]]) for i, j in pairs]
    )
    t = torch.stack([y[i] * y[j] for i, j in pairs]).double()
    # a ridge is as many more observations of 0, with a column of ones that is not penalised
    more = torch.diag((len(pairs) * ridge * z.var(0, correction=0)).sqrt())
    design = torch.cat(
        [torch.cat([torch.ones(len(z), 1), z], 1), torch.cat([0 * more[:, :1], more], 1)]
    )
    target = torch.cat([t, torch.zeros(3)])
    beta = torch.linalg.lstsq(design.double(), target.double()).solution
    found = fit_pair_features(x, y, K, ridge)
    assert_allclose(found.coefficients, beta[1:], rtol=1e-6)
    assert_allclose(found.intercept, beta[0], rtol=1e-6)
    new = normal(3, 4, seed=7)
    k = new @ x[:2].mT
    by_hand = beta[0] + beta[1] * k + beta[2] * torch.cdist(new, x[:2]).square() + beta[3] * k
    assert_allclose(found(new, x[:2], k), by_hand, rtol=1e-6)


@pytest.mark.parametrize("ridge", [1e-3, 0.3])
def test_random_features_are_fitted_as_one_regression_over_all_pairs(ridge):
    x, y, _ = two_classes(5)
    found = fit_random_features(x, y, num_features=6, ridge=ridge, seed=3)
    phi = found.features(x)
    pairs = ordered_pairs(10)
    z = torch.stack([phi[i] * phi[j] for i, j in pairs])
    t = torch.stack([y[i] * y[j] for i, j in pairs]).double()
    more = (ridge * z.square().sum(0).mean()).sqrt() * torch.eye(6, dtype=torch.float64)
    target = torch.cat([t, torch.zeros(6, dtype=torch.float64)])
    beta = torch.linalg.lstsq(torch.cat([z, more]), target).solution
    assert_allclose(found.coefficients, beta, rtol=1e-6)
    new = normal(3, 4, seed=7)
    assert_allclose(found(new, x), (found.features(new) * beta) @ phi.mT, rtol=1e-6)


def test_random_features_are_rectified_and_centred_on_the_training_samples():
    x, y, _ = two_classes(20)
    found = fit_random_features(x, y, num_features=50)
    assert_allclose(found.features(x).mean(0), 0, atol=1e-12)
    raw = found.features(x) + found.means
    assert_allclose(raw, (x @ found.directions.mT + found.offsets).clamp(min=0), atol=1e-12)
    kinked = ((raw == 0).any(0) & (raw > 0).any(0)).double().mean()
    assert kinked > 0.7  # most kinks lie among the samples


@settings(max_examples=10, deadline=None)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
def test_random_features_do_not_depend_on_scale_and_origin_of_samples(scale, shift):
    x, y, _ = two_classes(10)
    Z = fit_random_features(x, y)(x, x)
    moved = scale * (x + shift)
    assert_allclose(fit_random_features(moved, y)(moved, moved), Z, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(samples=st.floats(1e-3, 1e3), kernel=st.floats(1e-3, 1e3))
def test_pair_features_do_not_depend_on_the_units_of_samples_and_kernel(samples, kernel):
    x, y, K = two_classes(10)
    K = K + normal(20, 20, seed=4)
    Z = fit_pair_features(x, y, K)(x, x, K)
    scaled = samples * x
    assert_allclose(
        fit_pair_features(scaled, y, kernel * K)(scaled, scaled, kernel * K), Z, atol=1e-8
    )


def test_swapping_the_names_of_the_classes_changes_nothing():
    x, y, K = two_classes(10)
    assert torch.equal(fit_pair_features(x, y, K)(x, x, K), fit_pair_features(x, -y, K)(x, x, K))
    assert torch.equal(fit_random_features(x, y)(x, x), fit_random_features(x, -y)(x, x))


@pytest.mark.parametrize("distance", [0.6, 0.9])
def test_on_held_out_pairs_labels_raise_the_relative_ratio(distance):
    n = 100
    x, y, _ = two_classes(n + 30, distance=distance)
    x = x + 4  # as of images: kernels between all samples are positive
    K = x @ x.mT + 1
    train = torch.cat([torch.arange(n), torch.arange(n) + n + 30])
    held_out = torch.tensor(sorted(set(range(len(y))) - set(train.tolist())))
    x_, y_, K_ = x[held_out], y[held_out], K[held_out][:, held_out]
    by_pairs = fit_pair_features(x[train], y[train], K[train][:, train])(x_, x_, K_)
    by_features = fit_random_features(x[train], y[train])(x_, x_)
    plain = relative_ratio(K_, y_)
    # of what the kernel itself has: labels add more than that
    assert relative_ratio(label_aware_kernel(K_, by_pairs), y_) - 0.5 > 2 * (plain - 0.5)
    assert relative_ratio(label_aware_kernel(K_, by_features), y_) - 0.5 > 5 * (plain - 0.5)


def test_labels_that_mean_nothing_do_not_raise_it_on_held_out_pairs():
    x, _, K = two_classes(130, distance=0)
    x, K = x + 4, K + 64
    y = torch.where(normal(260, seed=9) > 0, 1, -1)
    x_, y_, K_ = x[200:], y[200:], K[200:][:, 200:]
    by_pairs = fit_pair_features(x[:200], y[:200], K[:200, :200])(x_, x_, K_)
    by_features = fit_random_features(x[:200], y[:200])(x_, x_)
    for Z in (by_pairs, by_features):
        ratio = relative_ratio(label_aware_kernel(K_, Z), y_)
        assert ratio == pytest.approx(relative_ratio(K_, y_), abs=0.02)


def test_a_feature_that_is_the_same_for_all_pairs_is_left_out():
    x, y, _ = two_classes(5)
    found = fit_pair_features(x, y, torch.ones(10, 10))
    assert found.coefficients[2] == 0
    assert bool(found.coefficients.isfinite().all())


def test_the_random_features_are_those_of_the_seed_and_of_no_global_generator():
    x, y, _ = two_classes(10)
    state = torch.random.get_rng_state()
    one, again, other = (fit_random_features(x, y, seed=seed)(x, x) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("x", "y", "ridge", "sentence"),
    [
        (torch.zeros(3, 2), torch.tensor([0, 1, 1]), 1.0, r"-1 and 1.* got \[0.0, 1.0\]"),
        (torch.zeros(3, 2), torch.tensor([1, 1, 1]), 1.0, r"both must occur, got \[1.0\]"),
        (torch.zeros(3, 2), torch.tensor([1, -1]), 1.0, r"got \(3, 2\) and \(2,\)"),
        (torch.zeros(1, 2), torch.tensor([1]), 1.0, r"two or more samples.* got \(1, 2\)"),
        (torch.zeros(3), torch.tensor([1, -1, 1]), 1.0, r"got \(3,\) and \(3,\)"),
        (torch.zeros(3, 2), torch.tensor([1, -1, 1]), 0.0, "ridge must be positive, got 0.0"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(x, y, ridge, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit_pair_features(x, y, torch.ones(len(x), len(x)), ridge)
    with pytest.raises(ValueError, match=sentence):
        fit_random_features(x, y, ridge=ridge)


def test_samples_that_are_all_the_same_have_no_random_features():
    with pytest.raises(ValueError, match="All training samples are the same"):
        fit_random_features(torch.ones(4, 2), torch.tensor([1, 1, -1, -1]))


def test_a_kernel_of_other_samples_is_refused():
    x, y, K = two_classes(3)
    with pytest.raises(ValueError, match=r"6 and 6 samples must have shape \(6, 6\), got \(5, 5\)"):
        fit_pair_features(x, y, K[:5, :5])
    with pytest.raises(ValueError, match=r"6 and 2 samples must have shape \(6, 2\), got \(6, 6\)"):
        fit_pair_features(x, y, K)(x, x[:2], K)


def test_distances_lose_no_digits_far_from_the_origin():
    random = torch.Generator().manual_seed(0)
    x, x_ = torch.randint(0, 64, (9, 3), generator=random).double().split([5, 4])
    regression = PairFeatureRegression(torch.tensor(0.0), torch.tensor([0.0, 1, 0]).double())
    far = regression(x + 1e9, x_ + 1e9, torch.zeros(5, 4))
    assert_allclose(far, (x[:, None] - x_).square().sum(2), rtol=1e-12)
