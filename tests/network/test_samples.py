import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_nc import NeuralCollapse, measure
from lightning_nc.network.samples import samples_of
from tests import nets

DATASET = TensorDataset(torch.zeros(9, 1))


def test_a_loader_lends_its_batch_size_and_collate_function():
    def collate(samples):
        return samples

    loader = DataLoader(DATASET, 7, collate_fn=collate)
    assert samples_of(loader, None)[:3] == (loader.dataset, 7, collate)
    assert samples_of(loader, 3).batch_size == 3


def test_a_batch_sampler_lends_its_batch_size():
    sampler = torch.utils.data.BatchSampler(torch.utils.data.SequentialSampler(range(9)), 6, True)
    assert samples_of(DataLoader(range(9), batch_sampler=sampler), None).batch_size == 6
    listed = DataLoader(range(9), batch_sampler=[[0, 1], [2]])  # which says no size
    assert samples_of(listed, None).batch_size == 100


def test_a_function_is_called_for_its_source():
    assert samples_of(lambda: DATASET, None).dataset is DATASET
    assert samples_of(lambda: DataLoader(DATASET), None).dataset is DATASET


@pytest.mark.parametrize(
    "source", [nets.Stream(range(3)), DataLoader(nets.Stream(range(3)))], ids=["dataset", "loader"]
)
def test_streams_are_refused(source):
    with pytest.raises(TypeError, match=r"Stream cannot be read again.*Probe\(source=dataset"):
        samples_of(source, None)


def test_loaders_of_whole_batches_are_refused():
    with pytest.raises(TypeError, match=r"batch_size=None.*batch_size=\.\.\."):
        samples_of(DataLoader(DATASET, batch_size=None), None)


class ByLists(torch.utils.data.Dataset):
    """Gives a batch for a list of indices, as those of scvi-tools and Hugging Face do."""

    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, indices):
        assert isinstance(indices, list)
        return {"x": self.X[indices], "y": self.y[indices]}


@pytest.mark.parametrize("limited", [False, True])
def test_a_dataset_that_is_read_by_lists_of_indices_gives_the_same_values(limited):
    X, y = torch.randn(24, 5), torch.arange(24) % 3
    part = torch.utils.data.SubsetRandomSampler(range(12)) if limited else range(24)
    sampler = torch.utils.data.BatchSampler(part, 6, drop_last=False)
    data = ByLists(X, y)
    loader = DataLoader(data, batch_size=None, sampler=sampler)
    assert samples_of(loader, None).batch_size == 6
    network = torch.nn.Linear(5, 3)
    n = 12 if limited else 24
    expected = measure(network, TensorDataset(X[:n], y[:n]), measures=[NeuralCollapse()])
    found = measure(network, loader, measures=[NeuralCollapse()])
    assert found.values == pytest.approx(expected.values, nan_ok=True)
