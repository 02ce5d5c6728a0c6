"""Features, classes and classifiers from fixed seeds: collapsed or not, far from zero or not."""

from typing import NamedTuple

import torch


class Given(NamedTuple):
    """The inputs of functions, on one device; the float tensors share one dtype."""

    features: torch.Tensor
    labels: torch.Tensor
    means: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    kernel: torch.Tensor
    signs: torch.Tensor
    fuzziness: torch.Tensor

    def to(self, device, dtype=None):
        moved = (t.to(device, dtype if t.is_floating_point() else None) for t in self)
        return Given(*moved)


# class sizes, distance of the classes from the origin, noise within classes, dtype
CASES = {
    "float32": ((9, 9, 9, 9), 0, 1.0, torch.float32),
    "float32, classes of unequal size": ((20, 9, 7, 5), 0, 1.0, torch.float32),
    "float32, far from the origin": ((20, 9, 7, 5), 30, 1.0, torch.float32),
    "bfloat16": ((20, 9, 7, 5), 0, 1.0, torch.bfloat16),
    "float16": ((20, 9, 7, 5), 0, 1.0, torch.float16),
    "float64, collapsed": ((9, 9, 9, 9), 0, 1e-6, torch.float64),
    "float64, collapsed far from the origin": ((20, 9, 7, 5), 30, 1e-6, torch.float64),
}


def given(case, d=6):
    """The inputs of a case, on the CPU."""
    counts, offset, noise, dtype = CASES[case]
    generator = torch.Generator().manual_seed(7)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    K, labels = len(counts), torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    centres = offset + 2 * normal(K, d)
    features = centres[labels] + noise * normal(len(labels), d)
    means = torch.stack([features[labels == k].mean(0) for k in range(K)])
    g = 1 + 0.3 * normal(len(labels), 40)  # so that kernels between classes are positive
    return Given(
        features=features,
        labels=labels,
        means=means,
        weight=normal(K, d),
        bias=normal(K),
        kernel=g @ g.T,
        signs=torch.where(labels < 2, -1, 1),
        fuzziness=torch.tensor([8.0, 5.0, 2.0, 0.7]),
    ).to("cpu", dtype)


def clusters(classes, each, d, seed=1):
    """Samples of separated classes, in mixed order."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat(each)
    centres = 2 * torch.randn(classes, d, generator=generator)
    return centres[labels] + torch.randn(len(labels), d, generator=generator), labels
