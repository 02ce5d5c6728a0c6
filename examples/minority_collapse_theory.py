r"""Minority collapse as predicted by the layer-peeled model, without a network or data.

Of ten classes, the K_A majority classes have R times as many samples as the minority classes. As R
grows, the classifier rows of the minority classes move closer to each other, from cosine -1/(K-1)
at R = 1. From a finite R_0 on they coincide, and the classifier can no longer tell the minority
classes apart::

    python examples/minority_collapse_theory.py

The figure shows the mean cosine of minority rows for three values of K_A, and R_0 for every K_A.
For K_A = 7, the minority rows are zero beyond a second imbalance, and their cosine is undefined.
The exit status is 1 if an R_0 is not as expected.

Source:
    Fang, He, Long & Su (2021), "Exploring deep neural networks via layer-peeled model: minority
    collapse in imbalanced training", PNAS 118(43).
"""

import argparse
import math
import sys

import numpy as np
from example_setup import BLUE, ORANGE, options_of, save
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_nc.theory import critical_imbalance, layer_peeled_model

K, ENERGY_W, ENERGIES_H, MAJORITIES = 10, 1, (5, 10), (3, 5, 7)
EXPECTED = {  # R_0 by K_A and E_H; these numbers are ours, the paper has a figure only
    (3, 5): 245.5,
    (5, 5): 12.19,
    (7, 5): 4.00,
    (3, 10): 6348,
    (5, 10): 81.1,
    (7, 10): 13.67,
}
PRECISION = 0.03
ALL_MAJORITIES = range(2, K - 1)  # with one majority class R_0 is beyond 10^8
VANISHED = "$\\times$: from here on the rows are zero,\nand the cosine is undefined"
Critical = dict[tuple[int, int], float]  # R_0 by K_A and E_H
STYLES = {5: (BLUE, "-", "o"), 10: (ORANGE, "--", "s")}  # by E_H


def minority_cosine(majority: int, energy_h: float, R: float) -> float:
    """Mean cosine of minority rows; NaN if they are zero."""
    counts = [R] * majority + [1.0] * (K - majority)
    return layer_peeled_model(counts, ENERGY_W, energy_h).mean_cosine_w(range(majority, K))


def last_cosine(majority: int, energy_h: float, low: float, high: float) -> float:
    """The R from which on minority rows are zero, given that they are at high and not at low."""
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        vanished = math.isnan(minority_cosine(majority, energy_h, middle))
        low, high = (low, middle) if vanished else (middle, high)
    return low


def print_table(critical: Critical) -> bool:
    """Print every R_0 beside its expected value; return whether all agree."""
    print(f"R_0 for K = {K}, E_W = {ENERGY_W}")
    print(f"{'K_A':>5}{'E_H':>5}{'R_0':>12}{'expected':>12}")
    right = True
    for (majority, energy_h), expected in EXPECTED.items():
        R_0 = critical[majority, energy_h]
        right &= abs(R_0 / expected - 1) <= PRECISION
        print(f"{majority:5d}{energy_h:5d}{R_0:12.5g}{expected:12.5g}")
    print(f"{'yes' if right else 'NO '}: every R_0 is within {PRECISION:.0%}")
    return right


def draw_cosines(axes: Axes, majority: int, points: int, critical: Critical) -> None:
    """Draw the mean cosine of minority rows against R, up to where the rows vanish."""
    for energy_h in ENERGIES_H:
        color, line, marker = STYLES[energy_h]
        R_0 = critical[majority, energy_h]
        near = R_0 * (1 - np.logspace(-4, -0.3, points // 3))  # the curve is steep there
        R = np.sort(np.concatenate([np.logspace(0, 4, points), near[near > 1], [R_0]]))
        cosines = np.array([minority_cosine(majority, energy_h, r) for r in R])
        axes.plot(R, cosines, line, color=color, label=f"$E_H = {energy_h}$")
        axes.plot([R_0], [1], marker, color=color, zorder=3)
        axes.annotate(
            f"$R_0 = {R_0:#.4g}$".replace(".$", "$"),
            (R_0, 1),
            xytext=(0, 8),
            textcoords="offset points",
            ha="left" if energy_h == 10 and R_0 < 1000 else "right",
            color=color,
        )
        if np.isnan(cosines).any():
            last = last_cosine(majority, energy_h, R_0, R[np.isnan(cosines)].min())
            axes.plot([R_0, last], [1, 1], line, color=color)
            axes.plot([last], [1], "x", color=color, markersize=8, markeredgewidth=2, zorder=4)
    if np.isnan(cosines).any():
        axes.text(0.97, 0.5, VANISHED, transform=axes.transAxes, ha="right", color="0.3")
    axes.axhline(-1 / (K - 1), color="0.4", linewidth=1, linestyle=":")
    label = f"$-1/(K-1) = {-1 / (K - 1):.3f}$"
    axes.text(1e4, -1 / (K - 1) - 0.03, label, ha="right", va="top", color="0.3")
    axes.set_ylim(-0.3, 1.25)
    axes.set_xscale("log")
    axes.set_xlim(0.8, 1.3e4)
    axes.set_title(f"$K_A = {majority}$ majority and $K_B = {K - majority}$ minority classes")
    axes.set_xlabel("imbalance $R = n_A / n_B$")
    axes.set_ylabel("mean cosine of minority rows")


def draw_critical(axes: Axes, critical: Critical) -> None:
    """Draw R_0 against the number of majority classes."""
    for energy_h in ENERGIES_H:
        color, line, marker = STYLES[energy_h]
        R_0 = [critical[majority, energy_h] for majority in ALL_MAJORITIES]
        label = f"$E_H = {energy_h}$"
        axes.plot(ALL_MAJORITIES, R_0, line, marker=marker, color=color, label=label)
    axes.set_yscale("log")
    axes.set_xticks(ALL_MAJORITIES)
    axes.set_xlabel("majority classes $K_A$")
    axes.set_ylabel("critical imbalance $R_0$")
    axes.set_title("from $R_0$ on, minority rows coincide")
    axes.legend()


def draw(points: int, critical: Critical) -> Figure:
    """Draw all four panels."""
    figure = Figure(figsize=(10.4, 7.6), dpi=120, layout="constrained")
    *of_cosines, of_critical = figure.subplots(2, 2).flat
    for axes, majority in zip(of_cosines, MAJORITIES, strict=True):
        draw_cosines(axes, majority, points, critical)
    of_cosines[0].legend(loc="upper left")
    draw_critical(of_critical, critical)
    for axes in (*of_cosines, of_critical):
        axes.grid(True, which="major", alpha=0.3)
    figure.suptitle(f"Minority collapse in the layer-peeled model, $K = {K}$, $E_W = {ENERGY_W}$")
    return figure


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = options_of(__doc__)
    parser.add_argument("--points", type=int, default=81, help="number of imbalances, 1 to 10^4")
    return parser.parse_args()


def main() -> int:
    """Run the example; return 0 if every R_0 is as expected."""
    options = parse()
    critical = {
        (majority, energy_h): critical_imbalance(majority, K - majority, ENERGY_W, energy_h)
        for energy_h in ENERGIES_H
        for majority in ALL_MAJORITIES
    }
    right = print_table(critical)
    figure = draw(options.points, critical)
    save(figure, options.output, "minority_collapse_theory")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
