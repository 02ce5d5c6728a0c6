"""What was measured in a project, against the reference on features that are taken by hand."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_nc.measures.bookkeeping import BOOKKEEPING
from tests import reference
from tests.projects.harness import IGNORED, Project, Run, trained


def plan_of(run: Run, callback: Any) -> Any:
    """The plan of a callback, which the first of those that share it holds."""
    plans = {key: plan for each in run.callbacks for key, plan in each.record.plans.items()}
    return next(plan for prefixes, plan in plans.items() if callback.record.prefix in prefixes)


class Taken(NamedTuple):
    """What was taken from a network by hand, as float64 arrays."""

    layers: dict[str, np.ndarray]
    last: np.ndarray
    labels: np.ndarray
    decided: np.ndarray
    rows: list[np.ndarray] | None


@contextmanager
def watched(module: Any, layers: Iterable[str], head: str) -> Iterator[dict[str, list[Any]]]:
    """Keep all outputs of modules under their names, and the inputs of the head under "last"."""
    seen: dict[str, list[Any]] = defaultdict(list)

    def keep(place: str) -> Any:
        return lambda _, args, output: seen[place].append(output)

    places = {name.partition("-")[0] for name in layers if name != "input"}
    hooks = [module.get_submodule(each).register_forward_hook(keep(each)) for each in places]
    hooks.append(
        module.get_submodule(head).register_forward_hook(
            lambda _, args, output: seen["last"].append(args[0])
        )
    )
    torch.backends.mha.set_fastpath_enabled(False)  # which calls no hooks
    yield seen
    torch.backends.mha.set_fastpath_enabled(True)
    for hook in hooks:
        hook.remove()


def output_of(seen: dict[str, list[Any]], name: str) -> Any:
    """The output of a layer, ``module`` or ``module-k``: its k-th run."""
    place, _, run = name.partition("-")
    return seen[place][int(run or 0) - 1]


@torch.no_grad()
def taken(project: Project, run: Run, callback: Any) -> Taken:
    """Features of all layers and of the head's input, by hooks that know nothing of the package."""
    module, dataset, probe = run.module, run.loader.dataset, callback.probe.key
    # the same batches, since sums in float32 depend on how many samples are summed at once
    batches = [batch.indices for batch in plan_of(run, callback).batches]
    assert sorted(index for batch in batches for index in batch) == list(range(len(dataset)))
    head = project.heads.get(probe, project.last)
    pools = {**project.layers, "last": project.last_pooling}
    parts: dict[str, list[Tensor]] = {name: [] for name in (*pools, "labels", "decided")}
    half = project.options.get("precision") == "bf16-mixed"
    with watched(module, project.layers, head) as seen:
        for indices in batches:
            read = run.loader.collate_fn([dataset[i] for i in indices])
            batch = module.transfer_batch_to_device(read, run.device, 0)
            seen.clear()
            seen["input"] = [batch[0] if isinstance(batch, tuple | list) else None]
            with torch.autocast(run.device.type, torch.bfloat16, enabled=half):
                logits, y = module.measured(batch, probe)
            y = y.flatten().cpu()
            kept = y != IGNORED
            parts["labels"].append(y[kept].long())
            parts["decided"].append(decisions(logits).cpu()[kept])
            for name, pool in pools.items():
                parts[name].append(as_float64(pool.take(output_of(seen, name), batch))[kept])
    h = {name: torch.cat(each).numpy() for name, each in parts.items()}
    rows = [as_float64(x).numpy() for x in project.rows(module, head)] if project.heads else None
    layers = {name: h[name] for name in project.layers}
    return Taken(layers, h["last"], h["labels"], h["decided"], rows)


def as_float64(x: Tensor) -> Tensor:
    """A tensor in float64, which not all devices have."""
    return x.detach().cpu().double()


def decisions(logits: Tensor) -> Tensor:
    """The class of the largest logit of each sample or position; of a single logit, by its sign."""
    if logits.ndim == 1 or logits.shape[1] == 1:
        return (logits.flatten() > 0).long()
    classes = 2 if logits.ndim == 3 else 1
    return logits.movedim(classes, -1).flatten(0, -2).argmax(-1)


def expected(family: str, project: Project, run: Run, found: Taken) -> dict[str, float]:
    """All values of a family from the slow reference, by the names under which they are logged."""
    classes, y = np.unique(found.labels, return_inverse=True)
    if family == "separation":
        D = {name: reference.separation_fuzziness(h, y) for name, h in found.layers.items()}
        law = reference.separation_values(list(D.values()))
        return law | {f"layers/{name}": value for name, value in D.items()}
    right = found.decided == found.labels
    if found.rows is None:
        W, b = np.eye(len(classes), found.last.shape[1]), np.zeros(len(classes))
        values = reference.collapse_values(found.last, y, W, b)
        of_head = ("_weights", "nc3", "unc3", "nc4", "accuracy")
        return {name: value for name, value in values.items() if not name.endswith(of_head)}
    if len(found.rows[0]) == 1:  # the two rows whose logits differ by the only one
        W, b = (np.concatenate([-x / 2, x / 2]) for x in found.rows)
    else:
        W, b = (x[classes] for x in found.rows)
    if family == "minority":
        n = np.bincount([int(y) for _, y in run.loader.dataset])
        minority = {int(k) for k in np.flatnonzero(reference.minority_classes(n.tolist()))}
        values = reference.minority_values(found.last, y, W, b, n, minority)
        of_class = [right[found.labels == k].mean() for k in sorted(minority)]
        return values | {"minority_accuracy": np.mean(of_class)}
    nearest = ((found.last[:, None] - reference.class_means(found.last, y)) ** 2).sum(2).argmin(1)
    return reference.collapse_values(found.last, y, W, b) | {
        "accuracy": right.mean(),
        "nc4": np.mean(found.decided != classes[nearest]),
    }


def expected_elasticity(run: Run) -> dict[str, float]:
    """All values of local elasticity on the whole dataset, from one gradient after another."""
    read = run.loader.collate_fn([*run.loader.dataset])
    inputs, labels = run.module.transfer_batch_to_device(read, run.device, 0)
    K = reference.tangent_kernel(reference.sample_gradients(run.module, inputs))
    labels = labels.cpu()
    same = labels[:, None] == labels
    per_logit = K / run.module(inputs).shape[1]
    return {
        "relative_ratio": reference.relative_ratio(K, labels),
        "relative_ratio_self_pairs": reference.relative_ratio(K, labels, self_pairs=True),
        "intra": per_logit[same & ~torch.eye(len(K), dtype=torch.bool)].mean(),
        "inter": per_logit[~same].mean(),
    }


def logged(callback: Any) -> dict[str, float]:
    """All values of the last measurement but bookkeeping."""
    family, probe = callback.family, callback.probe.key
    book = {f"{family}/{probe}/{row.name}" for row in BOOKKEEPING}
    of_layers = f"{family}_layers/{probe}/"
    return {
        key.replace(of_layers, "layers/").removeprefix(f"{family}/{probe}/"): value
        for key, value in callback.history[-1].values.items()
        if key not in book
    }


def check_values(project: Project, run: Run) -> None:
    """Every value that is logged is that of the reference, and nothing else is logged."""
    run.module.to(run.device).load_state_dict(run.measured_weights)
    run.module.eval()
    for callback in run.callbacks:
        if callback.family == "elasticity":
            values = expected_elasticity(run)
        else:
            values = expected(callback.family, project, run, taken(project, run, callback))
        values |= {name: np.nan for name in project.undefined if name in values}
        of_ours = logged(callback)
        assert of_ours.keys() == values.keys()
        near = {k: pytest.approx(v, rel=1e-6, abs=1e-12, nan_ok=True) for k, v in values.items()}
        assert {k: (of_ours[k], values[k]) for k in values if of_ours[k] != near[k]} == {}


def check_row(project: Project, run: Run) -> None:
    """What the table says of layers, head, pooling, classes and messages is so."""
    for callback in run.callbacks:
        measurement, head = callback.history[-1], project.heads.get(callback.probe.key)
        assert callback.failures == 0
        assert len(callback.history) == 3
        assert len(measurement.counts) == project.classes
        pools = project.layers if callback.family == "separation" else {}
        if callback.family in ("nc", "minority"):
            pools = {f"input of {head or project.last}": project.last_pooling}
            assert set(plan_of(run, callback).heads.values()) == ({head} if head else set())
        assert measurement.pooling == {n: pool.words for n, pool in pools.items() if pool.words}
    unsaid = [text for text in project.said if not any(text in each for each in run.said)]
    unknown = [each for each in run.said if not any(text in each for text in project.said)]
    assert (unsaid, unknown) == ([], [])


def check_run(project: Project, run: Run) -> None:
    """Compare what was measured with the row of the table, and values with the reference."""
    check_row(project, run)
    check_values(project, run)


def check(project: Project, folder: Any, accelerator: str = "cpu") -> None:
    """Train with and without callbacks, and compare weights, values and the row of the table."""
    alone, run = (trained(project, folder, measured, accelerator) for measured in (False, True))
    before, after = alone.module.state_dict(), run.module.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name].to_dense(), after[name].to_dense()) for name in before)
    check_run(project, run)
