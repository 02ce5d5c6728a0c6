"""Classes have the names that the dataset gives them, or their labels, wherever they are shown."""

import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from lightning_nc import (
    EquiSeparation,
    LocalElasticity,
    MinorityCollapse,
    NeuralCollapse,
    Probe,
    measure,
)
from lightning_nc.measures.timeline import Timeline
from tests import nets

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

NAMES = ("cat", "dog", "$lr$_fish", "horse", "_baseline")
SHOWN = ("cat", "$lr$_fish", "horse", "_baseline")  # there are no dogs
LABELS = ("0", "2", "3", "4")


class Pets(TensorDataset):
    classes = NAMES


def data(kind=TensorDataset):
    random = torch.Generator().manual_seed(0)
    y = torch.tensor([0, 2, 3, 4]).repeat_interleave(torch.tensor([12, 12, 6, 6]))
    x = torch.randn(5, 6, generator=random)[y] * 3
    x += torch.randn(len(y), 6, generator=random)
    return Subset(kind(x, y), range(len(y)))


def texts(figure):
    """All that is written in the axes, without the numbers of scales."""
    figure.canvas.draw()
    return {
        text.get_text().partition(": ")[0]
        for axes in figure.axes
        for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), *axes.texts)
    }


@pytest.mark.parametrize(("kind", "names"), [(Pets, SHOWN), (TensorDataset, LABELS)])
def test_figures_and_tables_name_classes_as_the_dataset_does(kind, names):
    network = nets.mlp(K=5)
    minority_collapse = MinorityCollapse(class_counts=[12, 0, 12, 6, 6])
    measures = [NeuralCollapse(), EquiSeparation(), minority_collapse, LocalElasticity()]
    with pytest.warns(RuntimeWarning, match="samples of 4 of these classes"):
        found = measure(network, data(kind), measures=measures)
    assert found.class_names == names
    drawn = {name: texts(drawing()) for name, drawing in found.drawings().items()}
    for name in ("nc/cosines", "minority/cosines", "minority/norms", "elasticity/kernel"):
        assert set(names) <= drawn[name], name
    assert set(names[:3]) <= drawn["nc/snapshot"]
    written = found.plot("separation/classes")[1].texts  # of the worst and the best class
    assert {text.get_text() for text in written} < set(names)
    for callback in (measures[0], measures[2]):
        timeline = Timeline(callback.measure.family, "data", [found])
        for table in callback.measure.tables(timeline).values():
            assert [row[1] for row in table.rows[:4]] == list(names)


def test_classes_that_are_numbered_from_0_have_their_numbers_and_no_names_are_stored():
    with_all = TensorDataset(torch.randn(8, 6), torch.arange(4).repeat(2))
    found = measure(nets.mlp(K=4), with_all)
    assert (found.classes, found.class_names) == ((), ("0", "1", "2", "3"))


def test_a_history_keeps_the_names_and_every_row_says_how_much_was_measured(tmp_path):
    callbacks = [NeuralCollapse(probe=Probe(data(Pets), "pets")), LocalElasticity(max_classes=3)]
    with pytest.warns(RuntimeWarning, match="samples of 4 of these classes"):
        nets.fit(tmp_path, callbacks, data(Pets), nets.mlp(K=5))
    neural_collapse, elasticity = (each.history[-1] for each in callbacks)
    assert neural_collapse.classes == elasticity.classes == SHOWN
    values = neural_collapse.values | elasticity.values
    assert (values["nc/pets/num_classes"], values["nc/pets/num_samples"]) == (4, 36)
    assert values["elasticity/train/num_classes"] == 3
    assert values["elasticity/train/num_samples"] == 15
