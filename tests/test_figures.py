"""What figures show, as matplotlib has it."""

import math
from itertools import pairwise

import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from lightning_nc import figures
from lightning_nc.figures.canvas import COLOURS
from lightning_nc.figures.labels import labels_of_logarithmic_ticks, shortened
from lightning_nc.figures.layout import FewLogTicks
from lightning_nc.figures.snapshot import Snapshot, save_snapshots
from lightning_nc.figures.time_axis import time_axis
from tests.drawn_words import cut_off

EPOCHS = [0, 1, 2, 3]
FALLING = {"NC1": [8.0, 4.0, 2.0, 1.0]}


def ticks(axis):
    axis.figure.canvas.draw()
    low, high = sorted(axis.get_view_interval())
    return [tick for tick in axis.get_ticklocs() if low <= tick <= high]


def boxes_of(axes, artists):
    axes.figure.canvas.draw()
    return [artist.get_window_extent() for artist in artists]


@pytest.mark.parametrize("rho", [0.5, 0.9, 1.1, 2.0])
def test_the_text_of_the_law_is_away_from_its_line_and_names_the_papers_r(rho):
    D = 100 * rho ** torch.arange(8, dtype=torch.float64)
    axes = figures.separation_figure([str(t) for t in range(8)], D, "the law").axes[0]
    texts = {text.get_text(): text for text in axes.texts}
    assert list(texts) == [
        f"\N{GREEK SMALL LETTER RHO} = {rho:.3f}\nr = {-1 if rho < 1 else 1:.3f}",
        "(He & Su: r = -0.997,\nbatch statistics)",
    ]
    points = axes.transData.transform(list(zip(range(8), D.tolist(), strict=True)))
    own, papers = boxes_of(axes, texts.values())
    assert not any(box.contains(*point) for box in (own, papers) for point in points)
    assert not own.overlaps(papers)


@pytest.mark.parametrize(
    "D", [[22.0, 400.0, 390.0, 370.0, 350.0], [9.0, 4.0, 3.6, 4.2, 5.0, 5.1], [1.0, 9.0, 8.0, 1.1]]
)
def test_the_text_of_the_law_is_away_from_points_that_do_not_obey_it(D):
    figure = figures.separation_figure([str(t) for t in range(len(D))], torch.tensor(D), "")
    (axes,) = figure.axes
    figure.canvas.draw()
    points = axes.transData.transform([*enumerate(D)])
    boxes = boxes_of(axes, axes.texts)
    assert not any(box.contains(*point) for box in boxes for point in points)
    assert not boxes[0].overlaps(boxes[1])


@pytest.mark.parametrize("rho", [0.5, 2.0])
def test_in_a_panel_of_a_page_the_texts_of_the_law_are_below_each_other(rho):
    _, axes = plt.subplots(figsize=(2.6, 1.6))
    D = 100 * rho ** torch.arange(8, dtype=torch.float64)
    figures.separation_figure([str(t) for t in range(8)], D, "the law", on=axes)
    law, reference = sorted(boxes_of(axes, axes.texts), key=lambda box: -box.y0)
    assert law.y0 - reference.y1 == pytest.approx(axes.figure.dpi / 72, abs=0.1)  # a point
    plt.close("all")


def test_each_of_many_layers_has_its_point_beside_the_line_of_the_law():
    D = 0.9 ** torch.arange(100)
    points, _ = figures.separation_figure([*map(str, range(100))], D, "").axes[0].lines
    assert points.get_linestyle() == "None"
    assert points.get_markevery() == [*range(100)]


def test_of_a_law_of_two_layers_r_is_not_written_which_is_undefined():
    axes = figures.separation_figure(["input", "net"], torch.tensor([5.0, 2.0]), "").axes[0]
    assert [text.get_text() for text in axes.texts] == ["\N{GREEK SMALL LETTER RHO} = 0.400"]


def test_layers_at_which_d_is_zero_are_hollow_and_the_figure_says_so():
    D = torch.tensor([5.0, 0.0, 2.0, 0.0])
    axes = figures.separation_figure([*"abcd"], D, "").axes[0]
    points, hollow = sorted(axes.lines, key=lambda line: line.get_markerfacecolor() == "white")
    assert hollow.get_xdata().tolist() == [1, 3]
    assert points.get_ydata()[[0, 2]].tolist() == [5, 2]
    assert [text.get_text() for text in axes.texts] == ["hollow: 0"]
    # without noise at any layer, the axis is linear, and zero is on it
    axes = figures.separation_figure([*"ab"], torch.zeros(2), "").axes[0]
    assert [line.get_markerfacecolor() != "white" for line in axes.lines] == [True]
    assert len(axes.texts) == 0


def test_legends_and_texts_within_small_axes_of_ones_own_make_these_no_narrower():
    layers, D = ["input", "net"], torch.tensor([[3.0, 3.0], [2.0, 1.0]])
    page, (one, two, three, four) = plt.subplots(1, 4, figsize=(7, 3), layout="constrained")
    figures.separation_figure(layers, D.mean(1), "", on=one)
    figures.class_separation_figure(layers, D, D.mean(1), ["hippopotamus", "cat"], "", on=two)
    figures.collapse_figure(EPOCHS, FALLING, 1, "", on=three)
    figures.prediction_figure(3.0, 0.5, [1, 2, 3], [0.0, 0.1, 0.2], -0.5, "", on=four)
    page.canvas.draw()
    assert min(7 * axes.get_position().width for axes in page.axes) > 1  # inches


def test_over_epochs_zeros_are_hollow_and_what_has_no_value_is_not_in_the_legend():
    values = {"NC1": [4.0, 2.0, 1.0, 0.5], "NC2": [math.nan] * 4, "NC4": [0.5, 0.0, 0.25, 0.0]}
    figure = figures.collapse_figure(EPOCHS, values, None, "")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["NC1", "NC4 (hollow: 0)"]
    of_ratio = {"a": values["NC1"], "b": values["NC2"]}
    other = figures.over_epochs_figure(EPOCHS, of_ratio, {"none": 0.5}, "", "")
    assert [text.get_text() for text in other.axes[0].get_legend().get_texts()] == ["a", "none"]
    (hollow,) = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    (shown,) = [line for line in figure.axes[0].lines if "NC4" in line.get_label()]
    assert hollow.get_xdata().tolist() == [1, 3]
    assert hollow.get_color() == shown.get_color()


def test_of_many_measurements_only_points_without_a_line_have_markers():
    epochs = list(range(100))
    values = [math.nan if 40 < epoch < 50 and epoch != 45 else 1.0 for epoch in epochs]
    for count, marked in ((10, list(range(10))), (100, [45])):
        curve = {"a": values[:count]}
        axes = figures.over_epochs_figure(epochs[:count], curve, {}, "", "").axes[0]
        assert axes.lines[0].get_markevery() == marked
    layers = [str(t) for t in range(20)]
    for count, dots in ((10, 1), (100, 0)):
        D = [torch.ones(20)] * count
        axes = figures.layers_over_epochs_figure(layers, epochs[:count], D, "").axes[0]
        assert len(axes.collections) == 1 + dots


@pytest.mark.parametrize(("last", "expected"), [(30, [0, 10, 20, 30]), (60, [0, 20, 40, 60])])
def test_ticks_of_epochs_are_round(last, expected):
    axes = figures.over_epochs_figure([0, last], {"a": [1, 2]}, {}, "", "").axes[0]
    assert [tick for tick in axes.get_xticks() if 0 <= tick <= last] == expected


def shaded(terminal, epochs=EPOCHS):
    axes = figures.collapse_figure(epochs, {"NC1": FALLING["NC1"][: len(epochs)]}, terminal, "")
    axes = axes.axes[0]
    lines = [line.get_xdata()[0] for line in axes.get_lines() if "fitted" in line.get_label()]
    return lines, [(span.get_x(), span.get_x() + span.get_width()) for span in axes.patches]


def test_the_terminal_phase_begins_with_a_line_and_does_not_reach_beyond_what_is_drawn():
    assert shaded(1) == ([1], [(1, 3)])
    assert shaded(3) == ([3], [(3, 3)])
    assert shaded(3, EPOCHS[:2]) == ([], [])  # as of an earlier measurement
    assert shaded(None) == ([], [])


@pytest.mark.parametrize("epochs", [[0, 0.1, 0.2], [3.25, 3.5]])
def test_within_an_epoch_measurements_fill_the_axis_and_ticks_are_parts_of_it(epochs):
    values = [1.0 / (1 + epoch) for epoch in epochs]
    for figure in (
        figures.collapse_figure(epochs, {"NC1": values}, None, ""),
        figures.over_epochs_figure(epochs, {"ratio": values}, {}, "", ""),
    ):
        left, right = figure.axes[0].get_xlim()
        assert right - left < 1.2 * (epochs[-1] - epochs[0])
        assert len(ticks(figure.axes[0].xaxis)) >= 3


def test_where_no_value_is_known_there_is_no_legend_and_no_warning():
    nothing = {"a": [math.nan] * 4}
    assert not figures.collapse_figure(EPOCHS, nothing, None, "").legends
    assert not figures.over_epochs_figure(EPOCHS, nothing, {}, "", "").axes[0].get_legend()


@pytest.mark.parametrize("epochs", [[0], [2.5], [0, 1], [0, 1, 2], [0, 0.5, 1], [0, 35], [0, 1000]])
def test_axes_of_epochs_have_whole_ticks(epochs):
    values = [1.0 / (1 + epoch) for epoch in epochs]
    shown = [
        figures.collapse_figure(epochs, {"NC1": values}, None, "").axes[0].xaxis,
        figures.over_epochs_figure(epochs, {"ratio": values}, {}, "", "").axes[0].xaxis,
    ]
    for axis in shown:
        assert ticks(axis)
        assert all(float(tick).is_integer() for tick in ticks(axis)), ticks(axis)


@pytest.mark.parametrize(
    ("epochs", "steps", "unit", "places"),
    [
        ([0, 0.5, 1], [0, 4, 9], "epoch", [0, 0.5, 1]),
        ([4, 2], [39, 19], "epoch", [4, 2]),  # checkpoints in any order
        ([0, 0, 0, 1], [0, 4, 9, 12], "step", [0, 4, 9, 12]),
        ([0, 0, 0], [0, 0, 1], "measurement", [1, 2, 3]),
        ([0, 0], [math.nan, math.nan], "measurement", [1, 2]),
    ],
)
def test_measurements_have_distinct_places_in_time(epochs, steps, unit, places):
    assert time_axis([epochs], [steps]) == (unit, [places])


def test_large_steps_and_counts_are_written_with_all_their_digits():
    steps = [0, 1234567, 2345678]
    assert time_axis([[0, 0, 0]], [steps]).words() == [f"step {step}" for step in steps]
    counts, minority = torch.tensor([1234567.0, 2.0]), torch.tensor([False, True])
    figure = figures.class_size_figure(counts, {"rows": torch.ones(2)}, minority, ["a", "b"], "")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "a: 1234567",
        "b: 2",
    ]


@pytest.mark.parametrize("epochs", [[0], [2.5], [0, 1, 2, 4, 8, 64], [0, 1234567], [*range(101)]])
def test_a_bar_says_which_epochs_the_shades_are_of(epochs):
    D = [torch.tensor([2.0, 1 / (1 + epoch)]) for epoch in epochs]
    (axes,) = figures.layers_over_epochs_figure(["input", "net"], epochs, D, "").axes
    (bar,) = axes.child_axes
    labels = [float(label.get_text()) for label in bar.get_yticklabels()]
    assert labels == [epochs[round(place)] for place in bar.get_yticks()]
    assert (labels[0], labels[-1]) == (epochs[0], epochs[-1])
    axes.figure.canvas.draw()
    shades = {tuple(shade) for shade in axes.collections[0].get_edgecolors()}
    assert len(shades) == len(epochs)  # a shade of its own for each


@pytest.mark.parametrize(("K", "lines"), [(10, 9), (100, 0)])
def test_the_kernel_has_lines_between_few_classes_and_none_over_many(K, lines):
    kernel = torch.eye(2 * K, dtype=torch.float64)
    figure = figures.similarity_figure(
        kernel, torch.arange(K).repeat_interleave(2), list(map(str, range(K))), ""
    )
    rows, columns = figure.axes[0].collections
    assert len(rows.get_paths()) == len(columns.get_paths()) == lines


def test_long_names_are_told_apart_by_what_they_do_not_have_in_common():
    names = [f"network.layer{i}.{j}.rather_long_name" for i in (1, 2) for j in (0, 1)]
    assert shortened(["input", *names]) == [
        "input",
        *("…layer1.0…", "…layer1.1…", "…layer2.0…", "…layer2.1…"),
    ]
    assert shortened(["input", "net.2", "net.6"]) == ["input", "net.2", "net.6"]
    # short names are shortened as the long ones beside them
    layers = ["stem", *(f"net.encoder.lay.{t}" for t in (9, 10, 100, 101))]
    assert shortened(layers) == ["stem", "…lay.9", "…lay.10", "…lay.100", "…lay.101"]
    assert shortened(["encoder_of_all_the_inputs"]) == ["…of_all_the_inputs"]
    # a name within another, and names that differ at their beginning alone
    nested = ["network.backbone.stage", "network.backbone.stage.block"]
    assert shortened(nested) == ["…stage", "…stage.block"]
    alike = [f"{side}_half_of_the_whole_network" for side in ("left", "right")]
    assert shortened(alike) == alike
    of_runs = [f"network.block.activation-{run}" for run in (1, 2)]
    assert shortened(of_runs) == ["…activation-1", "…activation-2"]


def test_short_names_keep_a_word_beside_their_numbers():
    layers = [f"net.vit.encoder.layer.{i}" for i in range(3)]
    assert shortened(layers) == ["…layer.0", "…layer.1", "…layer.2"]
    layers = [f"net.distilbert.transformer.layer.{i}.1" for i in range(3)]
    assert shortened(["input", *layers]) == ["input", "…layer.0…", "…layer.1…", "…layer.2…"]
    stages = [f"net.backbone.stages.{i}.blocks.{j}" for i in (0, 1) for j in (0, 1)]
    assert shortened(stages)[-1] == "…1.blocks.1"
    numbers = [f"0.1.2.3.4.5.6.7.8.9.10.{i}" for i in (11, 12)]  # no word to keep
    assert shortened(numbers) == ["…11", "…12"]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1e-3, 1, 1e3], ["10⁻³", "10⁰", "10³"]),
        ([5, 10, 20], ["5", "10", "20"]),
        ([5, 7.5, 10], ["5", "7.5", "10"]),
        ([0.001, 0.0015], ["0.001", "0.0015"]),
        ([1e-5, 2e-5], ["1\N{MULTIPLICATION SIGN}10⁻⁵", "2\N{MULTIPLICATION SIGN}10⁻⁵"]),
        ([9e3, 1.1e4], ["9\N{MULTIPLICATION SIGN}10³", "1.1\N{MULTIPLICATION SIGN}10⁴"]),
        ([], []),
    ],
)
def test_the_ticks_of_a_logarithmic_axis_have_labels_of_one_style(values, labels):
    assert labels_of_logarithmic_ticks(values) == labels


def test_more_curves_than_colours_are_all_drawn():
    fuzziness = {f"probe {i}": torch.tensor([3.0, 2.0 / (i + 1)]) for i in range(7)}
    lines = figures.separation_comparison_figure(["input", "net"], fuzziness, "").axes[0].lines
    assert [line.get_label() for line in lines] == list(fuzziness)
    assert to_hex(lines[5].get_color()).upper() == COLOURS[0]


@pytest.mark.parametrize("names", [["0", "1"], ["hippopotamus", "a_$lr$_class_of_long_name"]])
@pytest.mark.parametrize("worst", [2.0, 1.01])
def test_the_names_of_classes_are_within_the_axes_and_apart(names, worst):
    layers, class_D = ["input", "net"], torch.tensor([[3.0, 3.0], [worst, 1.0]])
    D, levels = class_D.mean(1), {0.0: class_D[:, 1], 0.5: class_D.mean(1), 1.0: class_D[:, 0]}
    for figure in (
        figures.class_separation_figure(layers, class_D, D, names, ""),
        figures.class_quantiles_figure(layers, levels, D, names, ""),
    ):
        axes = figure.axes[0]
        (frame,) = boxes_of(axes, [axes])
        boxes = boxes_of(axes, axes.texts)
        for box in boxes:
            assert frame.x0 < box.x0 < box.x1 < frame.x1
            assert frame.y0 < box.y0 < box.y1 < frame.y1
        low, high = sorted(boxes, key=lambda box: box.y0)
        assert low.y1 < high.y0


def test_long_names_of_classes_that_begin_or_end_alike_are_told_apart():
    names = ["bird of paradise, male", "bird of paradise, female", "a bird of paradise, male"]
    axes = figures.cosine_figure({"rows": torch.eye(3)}, "", names).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["bird of p…se, male", "bird of p…, female", "a bird of…se, male"]


def test_names_are_drawn_letter_by_letter_and_none_is_missing_in_the_legend():
    names, D = ["$\\foo$", "_b$", "$a_1$"], torch.tensor([3.0, 2, 1])
    figure = figures.separation_comparison_figure(names, dict.fromkeys(names, D), "$\\frac$")
    figure.canvas.draw()
    (axes,) = figure.axes
    legend = [text.get_text().strip() for text in axes.get_legend().get_texts()]
    shown = [text.get_text() for text in axes.get_xticklabels()]
    assert legend == shown == [name.replace("$", "\\$") for name in names]


def test_many_classes_are_a_histogram_with_a_line_at_the_simplex():
    counts = torch.zeros(201, dtype=torch.float64)
    counts[[0, 100, 200]] = torch.tensor([1.0, 98.0, 1.0], dtype=torch.float64)
    figure = figures.cosine_histogram_figure({"rows": {"": counts}}, "$a$", 1000)
    (axes,) = figure.axes
    steps, line = axes.get_lines()
    middles, shares = steps.get_data()
    assert (shares[0], shares[100]) == (0.01, 0.98)
    assert middles[[0, 100, 200]].tolist() == pytest.approx([-200 / 201, 0, 200 / 201])
    assert line.get_xdata()[0] == -1 / 999
    figure.canvas.draw()


def test_groups_of_many_classes_are_outlined_and_empty_ones_left_out():
    counts = {"majority": torch.ones(5), "minority": torch.zeros(5)}
    figure = figures.cosine_histogram_figure({"rows": counts, "means": counts}, "", 100)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [label.split(":")[0] for label in labels] == ["majority", "simplex"]


@pytest.mark.parametrize("K", [10, 10_000])
def test_norms_are_bars_in_one_outline_of_each_group(K):
    norms, minority = {"rows": torch.arange(K) + 1.0}, torch.arange(K) >= K / 2
    names = list(map(str, range(K)))
    figure = figures.class_size_figure(torch.arange(K).double(), norms, minority, names, "")
    (axes,) = figure.axes
    lengths = [bars.get_datalim(axes.transData).x1 for bars in axes.collections]
    assert lengths == [K / 2, K]  # majority and minority
    assert [text.get_text() for text in figure.legends[0].texts] == ["majority", "minority"]
    assert axes.get_yticklabels()[0].get_text() == f"{K - 1}: {K - 1}"  # the largest class first
    assert len(axes.get_yticks()) <= 12


@pytest.mark.parametrize("low", [1e-12, 0.3, 7.0])
@pytest.mark.parametrize("ratio", [1, 1.00001, 1.001, 1.5, 9, 20, 150, 1e4, 1e9])
def test_logarithmic_axes_have_a_few_ticks_and_all_are_labelled(low, ratio):
    D = torch.tensor([low * ratio, low], dtype=torch.float64)
    axis = figures.separation_figure(["input", "net"], D, "").axes[0].yaxis
    assert 2 <= len(ticks(axis)) <= 7
    labels = {label.get_text() for label in axis.get_ticklabels()}
    assert len(labels - {""}) == len(axis.get_ticklabels())
    assert len(axis.get_minorticklocs()) == 0


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.7, 39, [2, 5, 10, 20]),
        (3, 29, [5, 10, 20]),
        (0.65, 4.6, [1, 2, 3, 4]),
        (0.0045, 0.0086, [0.005, 0.006, 0.007, 0.008]),
        (0.3, 45, [0.3, 1, 3, 10, 30]),
        (0.02, 90, [0.1, 1, 10]),
    ],
)
def test_logarithmic_axes_have_round_ticks_at_which_values_can_be_read(low, high, expected):
    assert FewLogTicks().tick_values(low, high) == pytest.approx(expected)


def test_without_a_minority_no_class_is_called_majority():
    norms = {"rows": torch.ones(3)}
    figure = figures.class_size_figure(torch.ones(3), norms, torch.zeros(3), list("abc"), "")
    assert not figure.legends
    assert len(figure.axes[0].collections) == 1


def test_norms_that_are_not_finite_have_no_bar():
    norms = {"rows": torch.tensor([1.0, torch.nan, torch.inf])}
    size = torch.tensor([3.0, 2.0, 1.0])
    axes = figures.class_size_figure(size, norms, torch.zeros(3), list("abc"), "").axes[0]
    axes.figure.canvas.draw()
    assert axes.collections[0].get_datalim(axes.transData).x1 == 1


def test_figures_have_few_ticks_since_each_takes_milliseconds():
    names, D = list(map(str, range(10))), 0.5 ** torch.arange(10).double()
    norms = {"rows": D, "means": D}
    cosines = {"rows": torch.eye(10), "means": torch.eye(10)}
    for figure in (
        figures.separation_figure(names, D, ""),
        figures.layers_over_epochs_figure(names, range(20), [D] * 20, ""),
        figures.cosine_figure(cosines, "", names),
        figures.class_size_figure(D, norms, D < 0.1, names, ""),
        figures.collapse_figure(range(20), {"NC1": range(1, 21)}, None, ""),
    ):
        every = [part for axes in figure.axes for part in (axes, *axes.child_axes)]
        shown = [ticks(axis) for axes in every for axis in (axes.xaxis, axes.yaxis)]
        assert sum(map(len, shown)) <= 20


def test_a_hundred_layers_have_few_names_and_no_markers():
    names = ["input", *(f"net.encoder.layer.{t}" for t in range(99))]
    D = torch.linspace(3, 1, 100).double()
    figure = figures.layers_over_epochs_figure(names, [0, 1], [D, D / 2], "", "NC1")
    axes = figure.axes[0]
    assert axes.get_ylabel() == "NC1"
    assert len(axes.collections) == 1  # lines, and no markers
    shown = [text.get_text() for text in axes.get_xticklabels()]
    assert shown[:3] == ["input", "…layer.9", "…layer.19"]
    first, *others = boxes_of(axes, axes.get_xticklabels())
    for box in others:  # they are slanted: their right ends are apart by more than a letter
        assert box.x1 > first.x1 + 10
        first = box


def test_quantiles_of_many_classes_name_the_worst_and_the_best():
    rows = {rank: torch.tensor([2.0, 1.0]) * (1 + rank) for rank in (0.0, 0.25, 0.5, 0.75, 1.0)}
    extremes = ("$worst$", "best")
    figure = figures.class_quantiles_figure(["input", "net"], rows, rows[0.5], extremes, "")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["$worst$", "best"]
    assert [text.xy[1] for text in axes.texts] == [2.0, 1.0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["all classes", "50% of classes", "median class", "D of all"]
    figure.canvas.draw()


def test_what_is_written_around_axes_has_room_and_takes_one_layout():
    names = [f"net.a_rather_long_name.{t}" for t in range(8)]
    D = 0.5 ** torch.arange(8, dtype=torch.float64)
    norms = {"rows": torch.ones(8), "means": torch.ones(8)}
    drawn = [
        figures.separation_figure(names, D, "law"),
        figures.layers_over_epochs_figure(names, [0, 1], [D, D], "by epoch"),
        figures.class_size_figure(torch.ones(8), norms, torch.zeros(8), names, "norms"),
        figures.cosine_figure({"rows": torch.eye(8), "means": torch.eye(8)}, "cosines", names),
    ]
    for figure in drawn:
        figure.canvas.draw()
        renderer = figure.canvas.get_renderer()
        boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
        for box in boxes:
            assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
            assert 0 <= box.y0 < box.y1 <= figure.bbox.y1
        for left, right in pairwise(boxes):
            assert left.x1 < right.x0


def test_logarithmic_axes_are_labelled_in_letters():
    axes = figures.separation_figure(["a", "b"], torch.tensor([100.0, 0.01]), "").axes[0]
    axes.figure.canvas.draw()
    shown = [text.get_text() for text in axes.get_yticklabels()]
    assert {"10⁻²", "10⁻¹", "10⁰", "10¹", "10²"} <= set(shown)


def every_figure(name, title, label):
    """Functions that draw each figure of the package, by its name, with such words."""
    layers = ["input", *(f"{name}.{t}" for t in range(9))]
    D = 10 * 0.5 ** torch.arange(10).double()
    classes, counts = [f"{name}{k}" for k in range(3)], torch.tensor([50_000.0, 1000, 3])
    of_classes, minority = D[:, None] * torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 0, 1])
    kinds = "classifier rows", "centred class means"
    cosines, norms = dict.fromkeys(kinds, torch.eye(3)), dict.fromkeys(kinds, torch.ones(3))
    groups = {"majority": torch.ones(5), "minority": torch.ones(5)}
    quantiles = {level: D * (0.5 + level) for level in (0.0, 0.5, 1.0)}
    plane = torch.tensor([[0.0, 1.0], [-0.9, -0.5], [0.9, -0.5]])
    ones, of = torch.arange(9) // 3, figures
    by_epoch = {"references": {"reference": 1.0}, "label": label, "title": title}
    return {
        "separation_figure": lambda: of.separation_figure(layers, D, title, label=label),
        "class_separation_figure": lambda: of.class_separation_figure(
            layers, of_classes, D, classes, title
        ),
        "class_quantiles_figure": lambda: of.class_quantiles_figure(
            layers, quantiles, D, classes[:2], title
        ),
        "separation_comparison_figure": lambda: of.separation_comparison_figure(
            layers, {f"{name} a": D, f"{name} b": D / 2}, title
        ),
        "layers_over_epochs_figure": lambda: of.layers_over_epochs_figure(
            layers, [0, 300], [D, D / 2], title, label
        ),
        "collapse_figure": lambda: of.collapse_figure(EPOCHS, FALLING, 1, title),
        "over_epochs_figure": lambda: of.over_epochs_figure(
            EPOCHS, {label: [1.0, 2, 3, 4]}, **by_epoch
        ),
        "cosine_figure": lambda: of.cosine_figure(cosines, title, classes),
        "cosine_histogram_figure": lambda: of.cosine_histogram_figure(
            dict.fromkeys(kinds, groups), title, 100
        ),
        "class_size_figure": lambda: of.class_size_figure(counts, norms, minority, classes, title),
        "prediction_figure": lambda: of.prediction_figure(
            3.0, 0.5, [1, 2, 3], [0.0, 0.1, 0.2], -0.5, title
        ),
        "similarity_figure": lambda: of.similarity_figure(torch.eye(9), ones, classes, title),
        "snapshot_figure": lambda: of.snapshot_figure(Snapshot(plane, plane, classes, title)),
    }


SHORT = ("net", "What it is, train, epoch 3", "D")
LONG = (
    "network.backbone.encoder_of_all_inputs.stage",
    "Separation fuzziness of all layers, test_of_a_long_name_with_seed_4711, epoch 300",
    "class-distance normalised variance of the class means at this layer",
)


@pytest.mark.parametrize("words", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("name", [name for name in dir(figures) if name.endswith("_figure")])
def test_no_word_of_a_figure_is_cut_off(name, words):
    with cut_off() as found:
        every_figure(*words)[name]().canvas.draw()
    assert found == []


def test_no_title_of_a_film_is_cut_off(tmp_path):
    plane = torch.tensor([[0.0, 1.0], [-0.9, -0.5], [0.9, -0.5]])
    frames = [Snapshot(plane, plane, list("abc"), title) for title in (SHORT[1], LONG[1])]
    with cut_off() as found:
        save_snapshots(tmp_path / "film.gif", frames, 4)
    assert found == []
