"""Separation fuzziness and neural collapse as torchmetrics: exact, synchronised, in one sweep."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_nc.arguments import require_whole_number
from lightning_nc.functional.class_moments import (
    ClassMoments,
    class_moments,
    geometry_of_moments,
    pool_moments,
)
from lightning_nc.functional.input_checks import check_features, require_every_class
from lightning_nc.functional.separation import fuzziness_of
from lightning_nc.guards.precision import with_float64
from lightning_nc.measures.last_layer import LastLayer
from lightning_nc.measures.neural_collapse_quantities import QUANTITIES
from lightning_nc.passes.request import ClassifierGeometry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BEFORE = 3  # columns of the state before those of features


class _PooledMoments(Metric):
    """Moments of all samples seen, stored as one matrix so that one gather synchronises them.

    The rows of the state are ``[n_k, squares_k, scale, mu_k]`` for the K classes, then
    ``[0, 0, 0, r]`` for the rows r of the scatter's factor; before the first batch d is 0.
    """

    is_differentiable = False
    higher_is_better = False
    plot_lower_bound = 0.0
    full_state_update = True  # a batch is pooled with the state, not added to it
    moments: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        num_classes = require_whole_number("num_classes", num_classes, None)
        if num_classes < 2:
            raise ValueError(
                f"Separation needs two or more classes, got num_classes={num_classes}."
            )
        super().__init__(dist_sync_fn=partial(_gather_and_pool, num_classes), **kwargs)
        self.num_classes = num_classes
        empty = torch.zeros(num_classes, _BEFORE, dtype=torch.float64)
        self.add_state("moments", empty, dist_reduce_fx=_only_element)

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add features of shape ``(N, d)`` with class indices of shape ``(N,)``."""
        labels = check_features(features, labels)
        place = with_float64(features.device)
        batch = _pack(class_moments(features.to(place), labels.to(place), self.num_classes))
        self.moments = _pool(self.moments, batch, self.num_classes)

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the samples of another metric of as many classes, or of ``{"moments": state}``."""
        if isinstance(incoming_state, Metric):
            own, other = self.num_classes, getattr(incoming_state, "num_classes", None)
            if not isinstance(incoming_state, _PooledMoments) or own != other:
                raise ValueError(
                    f"Can add the samples of a metric of features in {own} classes, got "
                    f"{type(incoming_state).__name__} of {other}."
                )
            incoming_state = {"moments": incoming_state.moments}
        self.moments = _pool(self.moments, incoming_state["moments"], self.num_classes)
        self._computed, self._update_count = None, self._update_count + 1

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch and return the value of this batch alone; on an error, add nothing."""
        seen, updates = self.moments, self._update_count
        try:
            return super().forward(*args, **kwargs)
        except BaseException:  # an interrupt, too
            self.moments, self._update_count, self._computed = seen, updates, None
            raise

    def plot(self, val: Any = None, ax: Any = None) -> tuple["Figure", Any]:
        """Plot one or more values, as the metrics of torchmetrics do.

        Args:
            val: What ``compute`` or ``forward`` returned, or a list of that over time; by default
                what ``compute`` returns now.
            ax: Axes to draw on; by default those of a new figure.

        Returns:
            The matplotlib ``Figure``, and its ``Axes``.
        """
        axes: Any = self._plot(val, ax)[1]  # which returns no figure for given axes
        return axes.get_figure(), axes

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Any:
        """Move the metric, and leave it in float64 also where its module is cast, as by FSDP.

        If the device has no float64, the state stays on the CPU.
        """

        def move(x: Tensor) -> Tensor:
            if x.dtype != torch.float64 or x.is_meta:
                return fn(x)
            return x.to(with_float64(fn(x.new_empty(0, dtype=torch.float32)).device))

        super()._apply(move, exclude_state)
        self._device = self.moments.device  # where Lightning moves what it computes, in float64
        return self

    def _moments(self) -> ClassMoments:
        moments = _unpack(self.moments, self.num_classes)
        require_every_class(moments.counts)
        return moments


class SeparationFuzziness(_PooledMoments):
    r"""The separation fuzziness D over all batches and processes; ideal 0.

    .. math:: D = \operatorname{Tr}(SS_W SS_B^+)

    The value is that of `lightning_nc.functional.separation_fuzziness`, computed in one sweep. The
    state has up to 3d x d float64 numbers: 24 MB at d = 1,000, 2.4 GB at d = 10,000. For wider
    layers use the callbacks or `lightning_nc.measure`, which need two sweeps and three arrays of
    8 K d bytes. Add batches with ``update``: ``forward`` also evaluates each batch alone, which
    must then contain all classes.

    Args:
        num_classes: Number of classes K.
        kwargs: See `torchmetrics.Metric`.

    Raises:
        ValueError: For fewer than two classes; on ``update``, for labels out of range, shapes that
            do not match or features that are not finite; on ``compute``, if a class has no samples.
        TypeError: On ``update``, for features that are not floating point or labels that are no
            integers.

    Example:
        >>> metric = SeparationFuzziness(num_classes=2)
        >>> metric.update(torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1]))
        >>> metric.update(torch.tensor([[3.0], [-3.0]]), torch.tensor([0, 1]))
        >>> metric.compute()  # means +2 and -2, variance 1: 1 / 2**2
        tensor(0.2500, dtype=torch.float64)

    Source:
        He & Su (2023), "A law of data separation in deep learning", PNAS 120(36).
    """

    def compute(self) -> Tensor:
        """Return D over all samples of all processes."""
        return fuzziness_of(geometry_of_moments(self._moments()))


class NeuralCollapse(_PooledMoments):
    """NC1, NC2 and CDNV of last-layer features, over all batches and processes; all ideally 0.

    ``compute`` returns a dictionary of the quantities that features alone determine: ``nc1``,
    ``nc2_equinorm_means``, ``nc2_equiangularity_means``, ``nc2_maximal_angle_means``,
    ``nc2_etf_error``, ``gnc2`` and ``cdnv``. The values are those of the functions in
    `lightning_nc.functional`, computed in one sweep; those of NC2 and GNC2 are NaN for two classes,
    whose centred means are always opposite, and where all class means coincide. NC3 and NC4 need
    the classifier: use the callback `lightning_nc.NeuralCollapse`. The state has up to 3d x d
    float64 numbers (24 MB at d = 1,000). Add batches with ``update``: ``forward`` also evaluates
    each batch alone, which must then contain all classes.

    Args:
        num_classes: Number of classes K.
        kwargs: See `torchmetrics.Metric`.

    Raises:
        ValueError: For fewer than two classes; on ``update``, for labels out of range, shapes that
            do not match or features that are not finite; on ``compute``, if a class has no samples.
        TypeError: On ``update``, for features that are not floating point or labels that are no
            integers.

    Example:
        >>> metric = NeuralCollapse(num_classes=2)
        >>> metric.update(torch.tensor([[1.0], [3.0], [-1.0], [-3.0]]), torch.tensor([0, 0, 1, 1]))
        >>> metric.compute()["nc1"], metric.compute()["cdnv"]  # (1/4) / 2 and 1/16
        (tensor(0.1250, dtype=torch.float64), tensor(0.0625, dtype=torch.float64))

    Source:
        Papyan, Han & Donoho (2020), "Prevalence of neural collapse during the terminal phase of
        deep learning training", PNAS 117(40).
    """

    def compute(self) -> dict[str, Tensor]:
        """Return NC1, NC2 of the means, and CDNV, over all samples of all processes."""
        last = LastLayer(ClassifierGeometry(geometry_of_moments(self._moments())))
        # without a classifier, the rows that need one have no value
        found: dict[str, Any] = {row.name: row.of(last) for row in QUANTITIES if row.of}
        return {name: value for name, value in found.items() if value is not None}


def _pack(moments: ClassMoments) -> Tensor:
    counts, means, squares, factor, scale = moments
    before = torch.stack([counts, squares, torch.full_like(counts, scale)], 1)
    classes = torch.cat([before, means], 1)
    return torch.cat([classes, torch.nn.functional.pad(factor, (_BEFORE, 0))])


def _unpack(state: Tensor, num_classes: int) -> ClassMoments:
    classes, factor = state[:num_classes], state[num_classes:, _BEFORE:]
    counts, squares, scales = classes[:, :_BEFORE].unbind(1)
    return ClassMoments(counts, classes[:, _BEFORE:], squares, factor, float(scales[0]))


def _pool(a: Tensor, b: Tensor, num_classes: int) -> Tensor:
    """Pool two states; an empty one has no d and leaves the other unchanged."""
    if a.shape[1] == _BEFORE or b.shape[1] == _BEFORE:
        return b if a.shape[1] == _BEFORE else a
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"The dimension of the features changed from {a.shape[1] - _BEFORE} to "
            f"{b.shape[1] - _BEFORE}: use "
            "a metric of its own for each layer."
        )
    return _pack(pool_moments(_unpack(a, num_classes), _unpack(b, num_classes)))


def _gather_and_pool(num_classes: int, state: Tensor, group: Any = None) -> list[Tensor]:
    """Pool the states of all processes; the list has one element, so nothing is left to reduce."""
    pooled, *others = gather_all_tensors(state, group)
    for other in others:
        pooled = _pool(pooled, other, num_classes)
    return [pooled]


def _only_element(states: Tensor) -> Tensor:
    return states[0]
