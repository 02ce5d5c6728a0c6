"""The cost of measuring a network, against a bare forward sweep and a training epoch."""

from functools import partial

import torch
from torch import nn

from lightning_nc.measures.measure_network import measure
from lightning_nc.passes.probe import Probe
from tests.gpu import syncs
from tests.gpu.device import device, on_cuda
from tests.gpu.products import ProductsTimed
from tests.gpu.timing import seconds, seconds_and_peak

CACHES = {"cached": {"cache_mb": 8192}, "not cached": {"cache_mb": 0}}
DEFAULT = 100  # default number of samples per class of a probe


def autocast():
    return torch.autocast(device().type, torch.bfloat16)


def on_device(batch):
    return [t.to(device(), non_blocking=True) for t in batch]


def logits_of(output):
    return output if isinstance(output, torch.Tensor) else output.logits


def run(model, inputs):
    return logits_of(model(**inputs) if isinstance(inputs, dict) else model(inputs))


@torch.no_grad()
def bare_sweep(subject, model):
    with autocast():
        for batch in subject.loader():
            inputs, _ = subject.unpack(on_device(batch))
            run(model, inputs)


def one_measurement(subject, model, asked, each=None, **probe):
    source = Probe(
        subject.loader(each), "data", samples_per_class=None, unpack=subject.unpack, **probe
    )
    with autocast():
        return measure(model, source, pool=subject.pool, **asked)


def training_step(subject, model):
    """Seconds of an SGD step on a batch."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    batch = on_device(next(iter(subject.loader())))
    inputs, labels = subject.unpack(batch)

    def step():
        with autocast():
            loss = nn.functional.cross_entropy(run(model, inputs), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    taken = seconds(step, repeats=3)
    model.eval()
    return taken


def ways(subject, model):
    """The ways to measure a network: arguments of `measure` by name."""
    asked = {"NeuralCollapse": {"layers": None}, "EquiSeparation": {"head": False}}
    if subject.layers is not None:
        kinds = {name: type(m).__name__ for name, m in model.named_modules()}
        layers = [name for name, kind in kinds.items() if kind == subject.layers]
        asked["EquiSeparation, without the input"] = {"head": False, "layers": layers}
    return asked


class Cost:
    """The rows of one network."""

    def __init__(self, rows, subject):
        self.rows, self.subject = rows, subject
        self.bare, self.bare_peak, self.epoch = None, None, None

    def add_all(self):
        torch.manual_seed(0)
        made = []
        self.rows.add("networks", self.subject.name, "built", partial(self._network, made))
        if not made:
            return
        model = made[0]
        self._add("a bare forward sweep", partial(self._bare, model))
        if self.bare is None:
            return
        self._add("a training epoch, from one step", partial(self._epoch, model))
        for name, asked in ways(self.subject, model).items():
            for cached, probe in CACHES.items():
                work = partial(self._measured, model, asked, probe)
                self._add(f"{name}, {cached}", work)
        for name, asked in ways(self.subject, model).items():
            for cached, probe in CACHES.items():
                work = partial(self._waiting, model, asked, probe)
                self.rows.add("waiting", self.subject.name, f"{name}, {cached}", work)
            self.rows.add(
                "products", self.subject.name, name, partial(self._products, model, asked)
            )

    def _add(self, what, work):
        return self.rows.add("cost", self.subject.name, what, work)

    def _network(self, made):
        model = self.subject.build().to(device()).eval()
        made.append(model)
        return {
            "parameters, millions": sum(p.numel() for p in model.parameters()) / 1e6,
            "classes": self.subject.classes,
            "samples measured": self.subject.samples,
            "samples per batch": self.subject.batch,
            "samples of an epoch": self.subject.epoch,
        }

    def _bare(self, model):
        sweep = partial(bare_sweep, self.subject, model)
        sweep()
        self.bare, self.bare_peak = seconds_and_peak(sweep, repeats=3)
        return self._numbers(self.bare, self.bare_peak)

    def _epoch(self, model):
        steps = self.subject.epoch / self.subject.batch
        self.epoch = training_step(self.subject, model) * steps
        return {"seconds": self.epoch}

    def _measured(self, model, asked, probe):
        work = partial(one_measurement, self.subject, model, asked, **probe)
        work()
        taken, peak = seconds_and_peak(work, repeats=3 if self.bare < 0.5 else 1)
        numbers = self._numbers(taken, peak)
        if self.epoch is not None:
            # a default probe has more samples, at the same cost per sample
            samples = min(DEFAULT * self.subject.classes, self.subject.epoch)
            whole = taken * samples / self.subject.samples
            numbers["share of an epoch, %"] = 100 * whole / self.epoch
        return numbers

    def _numbers(self, taken, peak=None):
        numbers = {"seconds": taken, "by a bare sweep": taken / self.bare}
        return numbers if peak is None else {**numbers, "peak memory, MB": peak}

    def _waiting(self, model, asked, probe):
        if not on_cuda():
            raise RuntimeError("no CUDA device for the host to wait for")
        one, two = self.subject.each // 2, self.subject.each
        counts = [
            syncs.places(partial(one_measurement, self.subject, model, asked, each, **probe))
            for each in (one, two)
        ]
        batches = len(self.subject.loader(two)) - len(self.subject.loader(one))
        found = syncs.per_batch(*counts, batches)
        beside = syncs.beside(counts[1], found, len(self.subject.loader(two)))
        return {
            "times per batch": sum(found.values()),
            "places": _shown(found),
            "times per measurement beside": sum(beside.values()),
            "places beside": _shown(beside),
        }

    def _products(self, model, asked):
        work = partial(one_measurement, self.subject, model, asked)
        whole = seconds(work)
        with ProductsTimed() as timed:
            work()
        return {
            "products in float64": timed.count,
            "their seconds": timed.seconds(),
            "share of a measurement, %": 100 * timed.seconds() / whole,
        }


def _shown(counts, most=8):
    return ", ".join(f"{place} ({times:.3g})" for place, times in list(counts.items())[:most])
