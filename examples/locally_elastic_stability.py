r"""Locally elastic and uniform stability on digits, by influence functions and by retraining.

The loss on a sample z changes by beta(z_j, z) if z_j is left out of the training set. Bounds on the
generalisation gap from uniform stability use the largest change of all. Those from locally elastic
stability use the mean over z_j, for the worst z::

    python examples/locally_elastic_stability.py

L2-regularised logistic regression tells the threes from the eights in scikit-learn's digits. The
exit status is 1 unless the influence estimate is within 5 % of retraining without each sample, and
locally elastic stability is less than half of uniform stability.

Source:
    Deng, He & Su (2021), "Toward better generalization bounds with locally elastic stability",
    ICML.
"""

import sys

import torch
from example_setup import BLUE, ORANGE, options_of, save, use_one_thread
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor

from lightning_nc.theory.logistic import logistic_gradients, logistic_hessian, logistic_regression
from lightning_nc.theory.stability import (
    influence_stability,
    leave_one_out_stability,
    locally_elastic_stability,
)

M, MU, PRECISION = 300, 0.2, 0.05
NEGLIGIBLE = 0.01  # of the largest beta


def three_or_eight() -> tuple[Tensor, Tensor]:
    """Pixels in [0, 1] with a one for the bias, and whether each is an eight, in random order."""
    images, digits = (torch.as_tensor(each) for each in load_digits(return_X_y=True))
    chosen = ((digits == 3) | (digits == 8)).nonzero().flatten()
    chosen = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))]
    ones = torch.ones(len(chosen), 1, dtype=torch.float64)
    return torch.cat([images[chosen] / 16, ones], 1), (digits[chosen] == 8).long()


def stabilities() -> tuple[Tensor, Tensor]:
    """Estimates of beta by influence and by retraining, shape (m, n) each."""
    x, y = three_or_eight()
    x, x_test, y, y_test = x[:M], x[M:], y[:M], y[M:]
    w = logistic_regression(x, y, MU)
    accuracy = ((x_test @ w > 0) == y_test).double().mean()
    print(f"m = {M} training samples, n = {len(x_test)} test samples, test accuracy {accuracy:.1%}")
    influence = influence_stability(
        logistic_gradients(x, y, w),
        logistic_hessian(x, w, MU),
        logistic_gradients(x_test, y_test, w),
    )
    return influence, leave_one_out_stability(x, y, x_test, y_test, MU)


def print_table(influence: Tensor, retrained: Tensor) -> bool:
    """Print both stabilities by both estimates; return whether all claims are true."""
    estimated, exact = locally_elastic_stability(influence), locally_elastic_stability(retrained)
    print(f"{'m beta, in nats':32}{'influence':>11}{'retraining':>12}{'error':>9}")
    close = True
    for name, one, other in (
        ("sup_z E_j, locally elastic", estimated.locally_elastic, exact.locally_elastic),
        ("sup_z sup_j, uniform", estimated.uniform, exact.uniform),
    ):
        error = float(one / other - 1)
        close &= abs(error) <= PRECISION
        print(f"{name:32}{M * float(one):11.4f}{M * float(other):12.4f}{error:9.1%}")
    print(f"{'ratio':32}{float(estimated.ratio):11.4f}{float(exact.ratio):12.4f}")
    matters = retrained > NEGLIGIBLE * retrained.max()
    largest = float((influence / retrained - 1)[matters].abs().max())
    close &= largest <= PRECISION
    print(f"largest error of the {int(matters.sum())} betas above {NEGLIGIBLE:.0%}: {largest:.1%}")
    far = float(exact.ratio) < 0.5
    print(f"{'yes' if close else 'NO '}: influence is within {PRECISION:.0%} of retraining")
    print(
        f"{'yes' if far else 'NO '}: locally elastic stability is below half of uniform stability"
    )
    return close and far


def draw_agreement(axes: Axes, influence: Tensor, retrained: Tensor) -> None:
    """Draw influence against retraining, entry by entry."""
    x, y = M * retrained.flatten(), M * influence.flatten()
    ends = [float(x.max()) * 1e-4, float(x.max()) * 2]
    axes.plot(ends, ends, color="0.3", linewidth=1, label="equal")
    axes.plot(x, y, ".", color=BLUE, markersize=2, alpha=0.3, rasterized=True)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_xlabel(r"retraining without $z_j$: $m\,\beta(z_j, z)$")
    axes.set_ylabel(r"influence: $|\nabla l(z)^\top H^{-1} \nabla l(z_j)|$")
    axes.set_title("influence agrees with retraining")
    axes.legend(loc="upper left")


def draw_stabilities(axes: Axes, retrained: Tensor) -> None:
    """Draw the largest and the mean change of the loss on each z, and their suprema."""
    beta = M * retrained
    of_z = beta.mean(0)
    order = of_z.argsort()
    largest, mean, z = beta.max(0).values[order], of_z[order], torch.arange(1, len(of_z) + 1)
    for values, color, marker, name, supremum in (
        (largest, ORANGE, "^", r"$\sup_j m\,\beta(z_j, z)$", "uniform"),
        (mean, BLUE, "o", r"$E_j\, m\,\beta(z_j, z)$", "locally elastic"),
    ):
        axes.plot(z, values, marker, color=color, markersize=4, label=name)
        top = float(values.max())
        axes.axhline(top, color=color, linewidth=1, linestyle="--")
        axes.text(len(z), top * 1.06, f"{supremum}: {top:.2f}", color=color, ha="right")
    axes.set_yscale("log")
    axes.set_ylim(float(mean.min()) / 2, float(largest.max()) * 2)
    axes.set_xlabel("samples $z$, sorted by the mean")
    axes.set_ylabel("change of the loss, times $m$ (nats)")
    axes.set_title("each sample matters to few others")
    axes.legend(loc="lower right")


def main() -> int:
    """Run the example; return 0 if all claims are true."""
    options = options_of(__doc__).parse_args()
    use_one_thread()
    influence, retrained = stabilities()
    right = print_table(influence, retrained)
    figure = Figure(figsize=(11, 4.4), dpi=120, layout="constrained")
    of_agreement, of_stabilities = figure.subplots(1, 2)
    draw_agreement(of_agreement, influence, retrained)
    draw_stabilities(of_stabilities, retrained)
    for axes in (of_agreement, of_stabilities):
        axes.grid(True, alpha=0.3)
    save(figure, options.output, "locally_elastic_stability")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
