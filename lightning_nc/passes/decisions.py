"""What the classifier decides for each sample: by W h + b, and by what the network outputs."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_nc.functional.classifier import LinearDecision, decision_unit, two_row_head
from lightning_nc.functional.powers_of_two import in_units_of
from lightning_nc.network.answers import answer_of
from lightning_nc.network.capture import Capture
from lightning_nc.network.head import Head, far_from
from lightning_nc.network.nesting import tensors_in
from lightning_nc.network.points import Point
from lightning_nc.network.pooling import main_tensor
from lightning_nc.network.positions import Positions, outputs_at

_AT_ONCE = 2**22  # logits that are held at a time


def classifier_of(head: Head, point: Point, width: int) -> tuple[Tensor, Tensor | None]:
    """The weight and bias of the classifier, if they fit its input as it was pooled or flattened.

    Args:
        head: The head as it was when it ran.
        point: The point at its input.
        width: Feature dimension d of that point.

    Returns:
        Weight, any floating dtype, shape ``(R, d)``, and bias, float64, shape ``(R,)``; a one-logit
        head is read as two rows.

    Raises:
        ValueError: If the head has weights for another number of features.
    """
    if head.weight.shape[1] != width:
        over_positions = (
            ", such as the mean over positions: pool=lightning_nc.masked_mean for sequences, "
            "pool=lightning_nc.spatial_mean for images"
        )
        raise ValueError(
            f"The head '{point.module}' has weights for {head.weight.shape[1]} features, but its "
            f"input has {width} per sample. Give a pool= that returns the features that a weight "
            f"row multiplies{'' if width % head.weight.shape[1] else over_positions}."
        )
    if len(head.weight) == 1:
        return two_row_head(head.weight.double(), head.bias)
    return head.weight, head.bias


class HeadDecisions:
    """What W h + b decides, and what the network's output decides.

    Args:
        head: The head as it was when it ran.
        point: The point at its input.
        width: Feature dimension d of that point.
        is_named: Whether the head was named, rather than found.
    """

    def __init__(self, head: Head, point: Point, width: int, is_named: bool) -> None:
        weight, bias = classifier_of(head, point, width)
        self._rows_of_head, self._rows, self._is_named = len(head.weight), len(weight), is_named
        self._is_affine, self._name = head.is_affine, point.module
        self._unit = float(decision_unit(weight))
        b = None if bias is None else bias / self._unit
        self._decide = LinearDecision(in_units_of(self._unit, weight), b)
        self._likeness = [0.0, 0.0]  # of each reading of the output to W h + b

    def of(
        self, features: Tensor, outputs: Sequence[Any], positions: Positions | None = None
    ) -> Tensor:
        """What is decided for the samples of a batch.

        Args:
            features: Features at the head's input, shape ``(n, d)``.
            outputs: What the network returned, and what the head returned. The first tensor with a
                column per row of the head, or with a single column for two rows, decides; but what
                a head that was named returned decides if the network returned it among others.
            positions: Which positions are samples, if labels are of positions.

        Returns:
            Of each sample the row chosen by W h + b, by the output, and by the output if a single
            column holds probabilities; whether the output is something other than W h + b, whether
            a single column is no probability, and whether the output is NaN. Int64, shape
            ``(6, n)``.

        Raises:
            ValueError: If no output is of these samples, and the head does not compute W h + b.
        """
        outputs = outputs[-1:] if self._is_named and _is_among(*outputs) else outputs
        outputs = [answer_of(output, self._rows) for output in outputs]
        if positions is not None:
            outputs = [self._at(output, positions, features) for output in outputs]
        shaped = (_columns(output, len(features), self._rows) for output in outputs)
        output = next((z for z in shaped if z is not None), None)
        if output is None and not self._is_affine:
            raise ValueError(
                f"What is decided cannot be told: the head '{self._name}' does not compute W h "
                f"+ b, and the network returns no row for each of {len(features)} samples. "
                "Return such rows: Probe(..., forward=lambda module, inputs: ...)."
            )
        of_h = decision_unit(features)
        rows = max(_AT_ONCE // self._rows, 1)
        found = []
        for start in range(0, len(features), rows):
            part = slice(start, start + rows)
            chosen, logits = self._decide.of(features[part].double() / of_h, of_h)
            if output is None:
                found.append(_compared(chosen, logits))
                continue
            z = output[part].to(logits.device)
            z = z.to(torch.promote_types(z.dtype, logits.dtype))
            found.append(_compared(chosen, logits, z, z / self._unit / of_h))
        return torch.cat(found, 1)

    def _at(self, output: Any, positions: Positions, features: Tensor) -> Tensor | None:
        """The output at positions, read along the axis on which it is most like W h + b."""
        readings = outputs_at(output, positions, self._rows_of_head)
        if len(readings) < 2:
            return next(iter(readings), None)
        some = features[: max(_AT_ONCE // self._rows, 1)].double()
        of_h = decision_unit(some)
        logits = self._decide.of(some / of_h, of_h)[1]
        for place, z in enumerate(readings):  # a small batch tells little; those before add to it
            self._likeness[place] += _likeness(z[: len(some)].to(logits.device), logits)
        return readings[self._likeness.index(max(self._likeness))]


class SweptDecisions:
    """What classifiers decide in a sweep, batch after batch.

    It is kept as a whole: small tensors kept of every batch would hold their places among the
    activations that are freed, and these take new memory then, batch by batch.

    Args:
        heads: Name of the head whose input a point is.
        named: Those heads that were named, rather than found.
        samples: Number of samples of the sweep.
    """

    def __init__(self, heads: Mapping[Point, str], named: Collection[str], samples: int) -> None:
        self._heads, self._named, self._samples = heads, named, samples
        self._features: dict[Point, Tensor] = {}
        self._deciding: dict[Point, HeadDecisions] = {}
        self._decided: dict[Point, Tensor] = {}
        self._done: dict[Point, int] = {}

    def take(self, point: Point, features: Tensor, watched: Capture) -> None:
        """Keep features at the input of a head that has run: the output is not known yet."""
        head = self._heads.get(point)
        if head in watched.heads and head in watched.outputs:
            self._features[point] = features.clone()

    def add(self, watched: Capture, output: Any, positions: Positions | None) -> None:
        """Add what is decided for the samples of a batch that has run.

        Args:
            watched: The heads as they were when they ran. It notes what fails here: only those need
                decisions who ask for them.
            output: What the network returned.
            positions: See `HeadDecisions.of`.
        """
        for point, features in self._features.items():
            try:
                self._add(point, features, watched, output, positions)
            except Exception as error:
                watched.failures[point] = error
        self._features.clear()

    def _add(
        self,
        point: Point,
        features: Tensor,
        watched: Capture,
        output: Any,
        positions: Positions | None,
    ) -> None:
        name, width = self._heads[point], features.shape[1]
        if point not in self._deciding:
            head, is_named = watched.heads[name].on(features.device), name in self._named
            self._deciding[point] = HeadDecisions(head, point, width, is_named)
        found = self._deciding[point].of(features, [output, watched.outputs[name]], positions)
        if point not in self._decided:
            self._decided[point] = found.new_empty(len(found), self._samples)
        done = self._done.get(point, 0)
        self._done[point] = done + len(features)
        self._decided[point][:, done : self._done[point]] = found

    def of_all(self) -> dict[Point, Tensor]:
        """What was decided at each point, see `HeadDecisions.of`; shape ``(6, n)``."""
        return {point: rows[:, : self._done[point]] for point, rows in self._decided.items()}


def _likeness(output: Tensor, logits: Tensor) -> float:
    """How alike numbers are ordered, over samples and over classes, both of shape ``(n, R)``.

    Orders also tell outputs that are not W h + b, such as probabilities or adjusted logits. Ranks
    are not centred, which would take the same from both readings of an output.
    """
    total = 0.0
    for axis in (0, 1):
        ranks = (z.argsort(axis).argsort(axis).double() for z in (output, logits))
        total += float(torch.mul(*ranks).sum())
    return total


def _is_among(output: Any, of_head: Any) -> bool:
    """Whether the network returned several tensors, of which one is the head's output."""
    found, own = list(tensors_in(output)), main_tensor(of_head)
    several = len(found) > 1 and isinstance(own, Tensor)
    return several and any(
        each.numel() == own.numel() and torch.equal(each.flatten().to(own), own.flatten())
        for each in found
    )


def _compared(
    chosen: Tensor, logits: Tensor, output: Tensor | None = None, scaled: Tensor | None = None
) -> Tensor:
    """What is decided for some samples; the scaled output has the unit of the logits."""
    no = torch.zeros_like(chosen)
    # the largest number is NaN if any is
    nan = (logits if output is None else output).amax(1).isnan()
    if output is None or scaled is None:
        return torch.stack([chosen, chosen, chosen, no, no, nan])
    if output.shape[1] > 1:
        by_output, off = output.argmax(1), far_from(logits, scaled)
        return torch.stack([chosen, by_output, by_output, off, no, nan])
    # it may be the logit or its probability; which of them, only all samples together tell
    z, off = output[:, 0], far_from(logits.diff(dim=1), scaled)
    no_probability = (z < 0) | (z > 1)
    return torch.stack([chosen, z > 0, z > 0.5, off, no_probability, nan])


def _columns(output: Any, n: int, rows: int) -> Tensor | None:
    """An output as one or R columns, shape ``(n, 1)`` or ``(n, R)``; None if it is neither."""
    if not isinstance(output, Tensor) or output.ndim not in (1, 2) or len(output) != n:
        return None
    columns = output.detach().reshape(n, -1)
    fits = columns.shape[1] == rows or (columns.shape[1] == 1 and rows == 2)
    return columns if fits else None
