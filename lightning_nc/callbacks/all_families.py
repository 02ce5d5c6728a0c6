"""All families for classifiers on one probe, in one line."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from lightning_nc.callbacks.equi_separation import EquiSeparation
from lightning_nc.callbacks.local_elasticity import LocalElasticity
from lightning_nc.callbacks.measure_callback import MeasureCallback
from lightning_nc.callbacks.minority_collapse import MinorityCollapse
from lightning_nc.callbacks.neural_collapse import NeuralCollapse
from lightning_nc.callbacks.record import Figures, OnError
from lightning_nc.callbacks.schedule import When
from lightning_nc.passes.probe import Probe

_FAMILIES = ("separation", "nc", "minority", "elasticity")
_RARER = 10  # measurements for one of local elasticity


def callbacks_for(
    probe: str | Probe = "train",
    every_n_epochs: int = 1,
    epochs: Sequence[int] | None = None,
    when: When = "train_epoch_end",
    figures: Figures = True,
    on_error: OnError = "warn",
    without: Sequence[str] = (),
) -> list[Any]:  # of a list of `MeasureCallback`, type checkers say that it is none of `Callback`
    """Return a callback of every family for classifiers, for one probe.

    These are `EquiSeparation`, `NeuralCollapse` and `MinorityCollapse`, which share one pass, and
    `LocalElasticity`, which takes a backward pass per output of the network: it is measured one
    time in ten, namely the first time, every tenth time, and the last time. `NextTokenLaw`, which
    is for language models, is not among them.

    A family that does not apply logs nothing, and says why once, in Lightning's log: where there is
    no head (`MinorityCollapse`), where labels are of positions or parameters are sharded
    (`LocalElasticity`), and quantities of minority classes where there are none. It is neither a
    failure nor an error, whatever ``on_error`` says. `lightning_nc.check` says it before training.

    Args:
        probe: ``"train"``, ``"val"`` or ``"test"`` for the Trainer's data, or a `Probe`.
            `LocalElasticity` always measures with running statistics of BatchNorm.
        every_n_epochs: Measure before training, after every n-th epoch, and after the last one.
        epochs: Numbers of completed epochs at which to measure instead; 0 is before training.
        when: Whether to measure at the end of training epochs, ``"train_epoch_end"``, or of
            validation, ``"validation_end"``.
        figures: Which figures to log: by default those of the 1st, 2nd, 4th, 8th, ... measurement
            and of the last; ``"all"``, ``"last"`` or False.
        on_error: ``"warn"`` skips a measurement that fails and continues training; ``"raise"``
            stops the run.
        without: Families to leave out, of ``"separation"``, ``"nc"``, ``"minority"`` and
            ``"elasticity"``.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> [type(each).__name__ for each in callbacks_for("val", every_n_epochs=5)]
        ['EquiSeparation', 'NeuralCollapse', 'MinorityCollapse', 'LocalElasticity']
        >>> *_, elasticity = callbacks_for(epochs=range(13))
        >>> elasticity.schedule.epochs
        (0, 10, 12)
    """
    # of a text, each character is none
    if not isinstance(without, Collection) or not all(each in _FAMILIES for each in without):
        raise ValueError(
            f"without must list some of {', '.join(map(repr, _FAMILIES))}, as in "
            f'without=["elasticity"], got {without!r}.'
        )
    common: dict[str, Any] = {"when": when, "figures": figures, "on_error": on_error}
    made: list[MeasureCallback] = [
        kind(probe=probe, every_n_epochs=every_n_epochs, epochs=epochs, **common)
        for kind in (EquiSeparation, NeuralCollapse, MinorityCollapse)
    ]
    made.append(
        LocalElasticity(
            probe=replace(made[0].probe, batch_norm="eval"),
            every_n_epochs=_RARER * every_n_epochs,
            epochs=None if epochs is None else _rarely(sorted(set(epochs))),
            **common,
        )
    )
    for callback in made:
        callback.record.asked_for = False
    return [callback for callback in made if callback.family not in without]


def _rarely(epochs: Sequence[int]) -> list[int]:
    """The first, every tenth and the last of some epochs."""
    return sorted({*epochs[::_RARER], *epochs[-1:]})
