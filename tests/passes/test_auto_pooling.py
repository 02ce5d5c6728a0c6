"""Pooling that suits the shape: features are those of layers pooled by hand."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_nc import Probe, measure
from lightning_nc.network.runner import plain_runner
from lightning_nc.passes.agreement import Processes
from lightning_nc.passes.geometry_pass import GeometryPass
from lightning_nc.passes.request import Request
from tests import nets, reference

N, T, D = 12, 5, 4
LABELS = torch.arange(N) % 3
RANDOM = torch.Generator().manual_seed(0)
SEQUENCES = torch.randn(N, T, 6, generator=RANDOM)
TOKENS = torch.randint(0, 20, (N, T), generator=RANDOM)
LENGTHS = 1 + torch.randint(0, T, (N,), generator=RANDOM)
SIZES = [1, 4, T, N]  # of batches, also as many as there are tokens


def ask(net, source, *layers, classifier=True, **probe):
    probe = Probe(source, "own", samples_per_class=None, **probe)
    request = Request(layers=list(layers), classifier=classifier)
    one = GeometryPass(plain_runner(net.eval()), lambda: source, probe, [request], Processes())
    (answer,) = one.run()
    if isinstance(answer, Exception):
        raise answer
    return answer


def assert_is(geometry, features, labels=LABELS):
    """The means and D are those of features pooled by hand."""
    h, y = features.detach().double().flatten(1).numpy(), labels.numpy()
    means = torch.tensor(reference.class_means(h, y))
    torch.testing.assert_close(geometry.means * geometry.scale, means, rtol=1e-5, atol=1e-6)
    D_found = float(geometry.fuzziness.sum() / geometry.counts.sum())
    assert D_found == pytest.approx(reference.separation_fuzziness(h, y), rel=1e-4)


class Recurrent(nn.Module):
    """Sequences whose first axis is time, or packed ones."""

    def __init__(self, packed=False):
        super().__init__()
        torch.manual_seed(1)
        self.rnn, self.head, self.packed = nn.GRU(6, D, batch_first=packed), nn.Linear(D, 3), packed

    def forward(self, x, lengths=None):
        if not self.packed:
            return self.head(self.rnn(x.transpose(0, 1))[0][-1])
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.rnn(packed)[1][-1])


@pytest.mark.parametrize("size", SIZES)
def test_time_on_the_first_axis_is_no_sample(size):
    net = Recurrent()
    answer = ask(net, TensorDataset(SEQUENCES, LABELS), "rnn", batch_size=size)
    states = net.rnn(SEQUENCES.transpose(0, 1))[0]
    assert_is(answer.layers["rnn"], states.mean(0))
    assert_is(answer.classifier.features, states[-1])
    assert answer.pooling == {"rnn": "mean over tokens"}


def test_after_a_convolution_a_recurrent_layer_has_its_channels_last():
    class Sounds(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv1d(6, 7, 1), nn.Linear(2 * T, 3)
            self.rnn = nn.GRU(7, T, bidirectional=True, batch_first=True)

        def states(self, x):
            return self.rnn(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]

        def forward(self, x):
            return self.head(self.states(x).mean(1))

    net = Sounds()
    answer = ask(net, TensorDataset(SEQUENCES, LABELS), "rnn")
    assert_is(answer.layers["rnn"], net.states(SEQUENCES).mean(1))


@pytest.mark.filterwarnings("ignore:measure")
def test_a_function_of_ones_own_gets_what_a_layer_returns_with_time_first():
    net, data = Recurrent(), TensorDataset(SEQUENCES, LABELS)
    values = measure(net, data, layers={"rnn": lambda output: output[0][-1]}, head=False).values
    states = net.rnn(SEQUENCES.transpose(0, 1))[0][-1].detach()
    D = reference.separation_fuzziness(states.double().numpy(), LABELS.numpy())
    assert values["separation_layers/data/rnn"] == pytest.approx(D, rel=1e-5)


class Indices(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        return index


@pytest.mark.parametrize("size", SIZES)
def test_a_packed_sequence_ends_where_it_ends(size):
    def collate(of):
        return {"x": SEQUENCES[of], "lengths": LENGTHS[of], "labels": LABELS[of]}

    net = Recurrent(packed=True)
    answer = ask(net, DataLoader(Indices(), size, collate_fn=collate), "rnn")
    states = [net.rnn(x[None, :n])[0][0] for x, n in zip(SEQUENCES, LENGTHS, strict=True)]
    assert_is(answer.layers["rnn"], torch.stack([h.mean(0) for h in states]))
    assert_is(answer.classifier.features, torch.stack([h[-1] for h in states]))


def padded(left, dynamic, size, mask="attention_mask"):
    """A loader of tokens that are padded on one side, to the same length or to the longest."""

    def collate(of):
        longest = int(LENGTHS[of].max()) if dynamic else T
        ids, kept = (torch.zeros(len(of), longest, dtype=torch.long) for _ in range(2))
        for row, i in enumerate(of):
            n = LENGTHS[i]
            part = slice(longest - n, longest) if left else slice(0, n)
            ids[row, part], kept[row, part] = TOKENS[i, :n], 1
        masks = {"attention_mask": kept, "padding_mask": kept == 0, "lengths": LENGTHS[of]}
        return {"input_ids": ids, mask: masks[mask], "labels": LABELS[of]}

    return DataLoader(Indices(), size, collate_fn=collate)


def mean(h, kept):
    weights = kept[..., None].to(h)
    return (weights * h).sum(1) / weights.sum(1)


def last(h, kept):
    return h[torch.arange(len(h)), (kept * torch.arange(h.shape[1])).argmax(1)]


def first(h, kept):
    return h[:, 0]


# how a network makes one output of the tokens, and the same by hand of a sequence without padding
ENDS = {
    "the last token": (last, lambda h: h[-1]),
    "the first token": (first, lambda h: h[0]),
    "the mean": (mean, lambda h: h.mean(0)),
}


class Encoder(nn.Module):
    """A head on every token, of which some make the output; or on the mean of tokens."""

    def __init__(self, end="the mean", on_tokens=False, after=lambda z: z):
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.inner, self.act = nn.Embedding(20, D), nn.Linear(D, D), nn.Tanh()
        self.head, self.end, self.on_tokens, self.after = nn.Linear(D, 3), end, on_tokens, after

    def states(self, ids):
        return self.act(self.inner(self.embed(ids)))

    def forward(self, input_ids, attention_mask=None, padding_mask=None, lengths=None):
        if lengths is not None:
            padding_mask = torch.arange(input_ids.shape[1]) >= lengths[:, None]
        kept = ~padding_mask if attention_mask is None else attention_mask
        end, h = ENDS[self.end][0], self.states(input_ids)
        return self.after(end(self.head(h), kept) if self.on_tokens else self.head(end(h, kept)))

    def by_hand(self, end):
        pairs = zip(TOKENS, LENGTHS, strict=True)
        return torch.stack([ENDS[end][1](self.states(ids[:n])) for ids, n in pairs])


@pytest.mark.parametrize("size", [1, 4, T])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("end", "left"),
    [
        ("the last token", False),
        ("the last token", True),
        ("the first token", False),
        ("the mean", False),
        ("the mean", True),
    ],
)
def test_a_head_on_every_token_has_the_features_of_those_that_decide(end, left, dynamic, size):
    net = Encoder(end, on_tokens=True)
    answer = ask(net, padded(left, dynamic, size), "act")
    assert_is(answer.layers["act"], net.by_hand("the mean"))
    assert_is(answer.classifier.features, net.by_hand(end))
    chosen = net.head(net.by_hand(end)).argmax(1)
    assert float(answer.classifier.accuracy) == pytest.approx(
        float((chosen == LABELS).double().mean())
    )


def test_it_has_also_if_the_network_returns_log_probabilities():
    net = Encoder("the last token", on_tokens=True, after=lambda z: z.log_softmax(1))
    answer = ask(net, padded(True, False, 4))
    assert_is(answer.classifier.features, net.by_hand("the last token"))


@pytest.mark.parametrize("end", ENDS)
def test_it_has_also_if_a_network_in_half_precision_returns_float32(end):
    net = Encoder(end, on_tokens=True, after=lambda z: z.float()).bfloat16()
    answer = ask(net, padded(False, False, 4))
    states = [net.states(ids[:n]).double() for ids, n in zip(TOKENS, LENGTHS, strict=True)]
    assert_is(answer.classifier.features, torch.stack([ENDS[end][1](h) for h in states]))


@pytest.mark.parametrize("mask", ["attention_mask", "padding_mask", "lengths"])
def test_masks_of_any_kind_leave_out_padding(mask):
    net = Encoder()
    answer = ask(net, padded(False, True, 4, mask), "act")
    assert_is(answer.layers["act"], net.by_hand("the mean"))


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()


class TakesBatch(Wrapped):
    def forward(self, batch):
        return self.encoder(batch["input_ids"], batch["attention_mask"])


class TakesBatchAndNumber(TakesBatch):
    def forward(self, batch, batch_idx):
        return super().forward(batch)


class TakesArguments(Wrapped):
    def forward(self, ids, attention_mask):
        return self.encoder(ids, attention_mask)


class TakesMask(Wrapped):
    def forward(self, ids, mask):
        return self.encoder(ids, mask)


class TakesLengths(Wrapped):
    def forward(self, ids, seq_lens):
        return self.encoder(ids, torch.arange(ids.shape[1]) < seq_lens[:, None])


def unpacked(batch):
    return (batch["input_ids"], batch["attention_mask"]), batch["labels"]


def unpacked_lengths(batch):
    return (batch["input_ids"], batch["attention_mask"].sum(1)), batch["labels"]


@pytest.mark.parametrize(
    ("kind", "unpack"),
    [
        (TakesBatch, None),
        (TakesBatchAndNumber, None),
        (TakesArguments, unpacked),
        (TakesMask, unpacked),
        (TakesLengths, unpacked_lengths),
    ],
)
def test_a_mask_is_found_in_whatever_a_network_takes(kind, unpack):
    net = kind()
    answer = ask(net, padded(False, False, 4), "encoder.act", unpack=unpack)
    assert_is(answer.layers["encoder.act"], net.encoder.by_hand("the mean"))
    assert_is(answer.classifier.features, net.encoder.by_hand("the mean"))


class ChannelsLast(nn.Module):
    """Maps with channels after the samples, then on the last axis, in square images."""

    def __init__(self, channels):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.first = nn.Conv2d(1, channels, 3), nn.ReLU()
        self.inner, self.second, self.head = nn.Linear(channels, 4), nn.ReLU(), nn.Linear(4, 3)

    def maps(self, x):
        h = self.first(self.conv(x))
        return h, self.second(self.inner(h.permute(0, 2, 3, 1)))

    def forward(self, x):
        return self.head(self.maps(x)[1].mean((1, 2)))


@pytest.mark.parametrize("channels", [4, 5])  # maps are of size 4 x 4
def test_maps_are_flattened_if_they_fit_and_else_all_are_averaged(channels):
    net, data = ChannelsLast(channels), nets.images((12, 9, 9))
    first_maps, second_maps = net.maps(data.tensors[0])
    roomy = ask(net, data, "first", "second", batch_size=7)
    tight = ask(net, data, "first", "second", batch_size=7, memory_mb=0.002)
    labels = data.tensors[1]
    assert roomy.pooling == {}
    assert_is(roomy.layers["first"], first_maps, labels)
    assert_is(roomy.layers["second"], second_maps, labels)
    assert tight.pooling == dict.fromkeys(("first", "second"), "mean over positions")
    assert_is(tight.layers["first"], first_maps.mean((2, 3)), labels)
    assert_is(tight.layers["second"], second_maps.mean((1, 2)), labels)


@pytest.mark.parametrize("size", SIZES)
def test_channels_of_sequences_are_told_from_their_tokens(size):
    class Convolved(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.act, self.head = nn.Conv1d(T, 7, 3), nn.ReLU(), nn.Linear(7, 3)

        def forward(self, x):
            return self.head(self.act(self.conv(x)).mean(2))

    net = Convolved()
    answer = ask(net, TensorDataset(SEQUENCES, LABELS), "act", batch_size=size)
    assert_is(answer.layers["act"], net.act(net.conv(SEQUENCES)).mean(2))
