"""Projects on sequences, with a label for each."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset

from tests import architectures
from tests.projects.harness import ByHand, Project, Training

CLASSES = 4
VOCABULARY = 50


class Sentences(Dataset):
    """Sentences of different length, whose class decides which tokens are frequent."""

    def __init__(self, samples=24, shortest=3, longest=9, seed=0):
        random = torch.Generator().manual_seed(seed)
        self.labels = (torch.arange(samples) % CLASSES).tolist()
        lengths = torch.randint(shortest, longest + 1, (samples,), generator=random).tolist()
        self.sentences = [
            torch.randint(1 + 8 * y, 25 + 8 * y, (length,), generator=random)
            for y, length in zip(self.labels, lengths, strict=True)
        ]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.sentences[index], self.labels[index]


def padded(samples):
    """Collate: pad to the longest sentence of the batch."""
    sentences, labels = zip(*samples, strict=True)
    ids = pad_sequence(sentences, batch_first=True)
    mask = pad_sequence([torch.ones_like(each) for each in sentences], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor(labels)}


def with_lengths(samples):
    """Collate: padded sentences and their lengths."""
    sentences, labels = zip(*samples, strict=True)
    return {
        "tokens": pad_sequence(sentences, batch_first=True),
        "lengths": torch.tensor([len(each) for each in sentences]),
        "labels": torch.tensor(labels),
    }


def loaded(collate):
    return DataLoader(Sentences(), 8, shuffle=True, collate_fn=collate)


class WithMask(Training):
    def forward(self, input_ids, attention_mask):
        found = self.net(input_ids=input_ids, attention_mask=attention_mask)
        return getattr(found, "logits", found)

    def measured(self, batch, probe):
        return self(batch["input_ids"], batch["attention_mask"]), batch["labels"]


class WholeBatch(Training):
    """As in many examples of transformers: forward passes on all that the batch holds."""

    def forward(self, **batch):
        return self.net(**batch)

    def measured(self, batch, probe):
        return self(**batch).logits, batch["labels"]

    def training_step(self, batch, _):
        return self(**batch).loss


class Recurrent(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.lstm = nn.LSTM(width, out, batch_first=True)

    def forward(self, packed):
        return self.lstm(packed)[0]


class PackedLSTM(Training):
    """Three layers on packed sequences; features are the states after the last tokens."""

    def __init__(self):
        super().__init__(nn.Sequential(Recurrent(8, 10), Recurrent(10, 10), Recurrent(10, 12)))
        self.embedding, self.head = nn.Embedding(VOCABULARY, 8), nn.Linear(12, CLASSES)

    def forward(self, tokens, lengths):
        h = self.embedding(tokens)
        states = self.net(pack_padded_sequence(h, lengths.cpu(), True, enforce_sorted=False))
        h, lengths = pad_packed_sequence(states, batch_first=True)
        return self.head(h[torch.arange(len(h), device=h.device), lengths - 1])

    def measured(self, batch, probe):
        return self(batch["tokens"], batch["lengths"]), batch["labels"]


def of_real_tokens(h, batch):
    """The mean over the tokens of each sentence that are no padding."""
    kept = batch["attention_mask"][..., None]
    return (kept * h).sum(1) / kept.sum(1)


def of_packed(packed, _):
    """The same of a packed sequence, which pads with zeros."""
    states, lengths = pad_packed_sequence(packed, batch_first=True)
    return states.sum(1) / lengths[:, None].to(states.device)


MASKED = ByHand(of_real_tokens, "mean over tokens")
PACKED = ByHand(of_packed, "mean over tokens")

PROJECTS = [
    Project(
        "nn.TransformerEncoder with a padding mask",
        lambda: (WithMask(architectures.StockEncoder()), loaded(padded)),
        dict.fromkeys(architectures.numbered("net.encoder.layers", 3), MASKED),
        {"train": "net.head"},
    ),
    Project(
        "BERT (transformers), batches padded to their longest sentence",
        lambda: (WithMask(architectures.published("Bert")), loaded(padded)),
        dict.fromkeys(architectures.numbered("net.bert.encoder.layer", 3), MASKED),
        {"train": "net.classifier"},
    ),
    Project(
        "RoBERTa (transformers), by forward(**batch)",
        lambda: (WholeBatch(architectures.published("Roberta")), loaded(padded)),
        dict.fromkeys(architectures.numbered("net.roberta.encoder.layer", 3), MASKED),
        {"train": "net.classifier.out_proj"},
    ),
    Project(
        "ALBERT (transformers), one layer that runs again and again",
        lambda: (WithMask(architectures.published("Albert")), loaded(padded)),
        dict.fromkeys([f"net.albert.encoder.albert_layer_groups.0-{k}" for k in (1, 2, 3)], MASKED),
        {"train": "net.classifier"},
    ),
    Project(
        "LSTMs on packed sequences",
        lambda: (PackedLSTM(), loaded(with_lengths)),
        dict.fromkeys(architectures.numbered("net", 3), PACKED),
        {"train": "head"},
    ),
]
