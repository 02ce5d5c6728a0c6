"""Families as users write them, each with sums of its own: ranks, alignment, probes, gradients."""

import torch

from lightning_nc import (
    Curve,
    Evaluation,
    GradientPass,
    KernelRequest,
    Measure,
    Panel,
    Quantity,
    Request,
    Statistic,
)
from lightning_nc.figures.canvas import canvas


class Scatter(Statistic):
    """Products of residuals: what the class means leave of the covariance."""

    name = "scatter"

    def shape(self, K, d):
        return d, d

    def of(self, batch):
        return batch.residuals.mT @ batch.residuals


def eigenvalues(geometry):
    n, means = geometry.counts, geometry.means
    between = n.sqrt()[:, None] * (means - n @ means / n.sum())
    values = torch.linalg.eigvalsh(geometry.statistics["scatter"] + between.mT @ between)
    noise = len(values) * torch.finfo(values.dtype).eps * values.max()
    return torch.where(values > noise, values, 0)


def participation_ratio(geometry):
    values = eigenvalues(geometry)
    return values.sum() ** 2 / values.square().sum()


def effective_rank(geometry):
    values = eigenvalues(geometry).sqrt()
    return torch.special.entr(values / values.sum()).sum().exp()


class Ranks(Measure):
    """Sums in the second sweep, two numbers of each layer, and a figure."""

    family, title, question = "ranks", "Ranks", "How many directions do features use?"
    figures = ("depth",)
    quantities = ()
    layer_quantities = (
        Quantity(
            "participation", "", "Participation ratio", "Of features.", of=participation_ratio
        ),
        Quantity("effective", "", "Effective rank", "Of features.", of=effective_rank),
    )

    def request(self):
        return Request(layers="blocks", statistics=(Scatter(),))

    def draw(self, timeline):
        def depth(on=None):
            figure, (axes,) = canvas(1, (5, 3), on)
            for name in ("participation", "effective"):
                numbers = timeline.layers_over_epochs(name)[-1]
                axes.plot(timeline.layers_with(name), numbers, label=name)
            axes.set_title(timeline.title_of_last("Ranks"))
            return figure

        return {"depth": depth}


class Features(Statistic):
    """The features of all samples, in the first sweep."""

    name, second_sweep = "features", False

    def __init__(self, most):
        self.most = most

    def shape(self, K, d):
        return self.most, d

    def of(self, batch):
        rows = torch.zeros(self.shape(None, batch.features.shape[1]), dtype=torch.float64)
        return rows.index_copy(0, batch.places.cpu(), batch.features.double().cpu())


def alignment(a, b):
    a, b = a - a.mean(0), b - b.mean(0)
    return (a.mT @ b).square().sum() / ((a.mT @ a).norm() * (b.mT @ b).norm())


class Alignment(Measure):
    """Samples themselves, without class means; an evaluation over several layers."""

    family, title, question = "alignment", "Alignment", "How much does each layer change?"
    quantities = ()
    layer_quantities = (Quantity("", "CKA", "Linear CKA", "With the layer before."),)

    def request(self):
        return Request(layers="blocks", statistics=(Features(30),), geometry=False)

    def evaluate(self, answer):
        n = int(answer.counts.sum())
        layers = {name: found["features"][:n] for name, found in answer.statistics.items()}
        pairs = zip(layers.values(), [*layers.values()][1:], strict=False)
        return Evaluation({}, dict(zip([*layers][1:], (alignment(*p) for p in pairs), strict=True)))


class Moments(Statistic):
    """Second moments of features, with a constant, and of these with the classes."""

    name, second_sweep = "moments", False

    def shape(self, K, d):
        return d + 1, d + 1 + K

    def of(self, batch):
        X = with_constant(batch.features)
        return torch.cat([X.mT @ X, batch.by_class(X).mT], 1)


class RidgeCorrect(Statistic):
    """What a ridge regression gets right, which is fitted in the first sweep."""

    name = "ridge correct"

    def shape(self, K, d):
        return (K,)

    def of(self, batch):
        X = with_constant(batch.features)
        squares, products = batch.centres.statistics["moments"].split(
            [X.shape[1], batch.num_classes], 1
        )
        ridge = 1e-3 * torch.eye(len(squares), device=X.device)
        decided = (X @ torch.linalg.solve(squares + ridge, products)).argmax(1)
        return batch.by_class(decided == batch.labels)


def with_constant(features):
    return torch.nn.functional.pad(features.double(), (0, 1), value=1)


class LinearProbes(Measure):
    """Sums of the first sweep that are used in the second."""

    family, title, question = "probes", "Linear probes", "From which layer on are classes apart?"
    panel = Panel("Accuracy of the last probe", "Of ridge regression.")
    quantities = (
        Quantity(
            *("last", "", "Last probe", "Accuracy at the last layer.", "1"),
            of=lambda answer: accuracy([*answer.layers.values()][-1]),
            chart=Curve(panel, "accuracy"),
        ),
    )

    def __init__(self):
        row = Quantity("", "", "Accuracy", "Of ridge regression.", "1", of=accuracy)
        self.layer_quantities = (row,)

    def request(self):
        return Request(layers="blocks", statistics=(Moments(), RidgeCorrect()))


def accuracy(geometry):
    return geometry.statistics["ridge correct"].sum() / geometry.counts.sum()


class Norms(Statistic):
    """The sum of the norms of features of each class."""

    name, second_sweep = "norms", False

    def shape(self, K, d):
        return (K,)

    def of(self, batch):
        return batch.by_class(batch.features.double().norm(dim=1))


class MinorityNorms(Measure):
    """Numbers of each class, kept for a figure; an option of its own."""

    family, title, question = "norms", "Norms by class", "Are features of rare classes shorter?"
    figures = ("norms",)
    quantities = ()

    def __init__(self, minority: list[int]):
        self.minority = minority
        row = Quantity("", "", "Ratio of norms", "Minority by majority.", "1", of=self.ratio)
        self.layer_quantities = (row,)

    def request(self):
        return Request(layers="blocks", statistics=(Norms(),))

    def ratio(self, geometry):
        norms = (geometry.statistics["norms"] / geometry.counts).tolist()
        few = [norms.pop(k) for k in sorted(self.minority, reverse=True)]
        return (sum(few) / len(few)) / (sum(norms) / len(norms))

    def evaluate(self, answer):
        last = [*answer.layers.values()][-1]
        norms = last.statistics["norms"] / last.counts
        return super().evaluate(answer)._replace(arrays={"norms": norms})

    def draw(self, timeline):
        def norms(on=None):
            figure, (axes,) = canvas(1, (5, 3), on)
            axes.barh(timeline.last.class_names, timeline.last.arrays["norms"])
            return figure

        return {"norms": norms}


def norms_by_class(kernel):
    norms = kernel.kernel.diagonal().sqrt()
    return torch.stack([norms[kernel.labels == k].mean() for k in kernel.labels.unique()])


def largest_by_smallest(answer):
    norms = norms_by_class(answer.kernel)
    return norms.max() / norms.min()


class GradientNorms(Measure):
    """Gradients of single samples."""

    family, title, question = "gradients", "Gradients", "Which class pulls hardest?"
    quantities = (
        Quantity("ratio", "", "Ratio", "Of the norms of classes.", "1", of=largest_by_smallest),
    )
    passes = GradientPass

    def request(self):
        return Request(kernel=KernelRequest(samples_per_class=9))

    def evaluate(self, answer):
        norms = norms_by_class(answer.kernel)
        return super().evaluate(answer)._replace(arrays={"norms": norms})
