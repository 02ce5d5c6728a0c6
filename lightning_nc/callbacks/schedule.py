"""When to measure, in completed epochs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_nc.arguments import require_one_of, require_whole_number, require_whole_numbers

When = Literal["train_epoch_end", "validation_end"]


@dataclass(frozen=True)
class Schedule:
    """Epochs at which a callback measures.

    Without ``epochs``, these are 0 (before training), every n-th epoch, and the last one.

    Args:
        every_n_epochs: Measure after every n-th epoch.
        epochs: Numbers of completed epochs at which to measure instead; 0 is before training.
        when: Whether to measure at the end of training epochs, ``"train_epoch_end"``, or of
            validation, ``"validation_end"``.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> schedule = Schedule(every_n_epochs=10)
        >>> [epoch for epoch in range(26) if schedule.due(epoch, last_epoch=25)]
        [0, 10, 20, 25]
        >>> [epoch for epoch in range(26) if Schedule(epochs=[0, 3]).due(epoch, last_epoch=25)]
        [0, 3]
    """

    every_n_epochs: int = 1
    epochs: Sequence[int] | None = None
    when: When = "train_epoch_end"

    def __post_init__(self) -> None:
        """Refuse schedules that would never be due."""
        every = require_whole_number("every_n_epochs", self.every_n_epochs, 1)
        object.__setattr__(self, "every_n_epochs", every)
        if self.epochs is not None:
            epochs = require_whole_numbers("epochs", self.epochs, " (before training)")
            object.__setattr__(self, "epochs", tuple(epochs))
        require_one_of("when", self.when, ("train_epoch_end", "validation_end"))

    @property
    def in_words(self) -> str:
        """The schedule in a few words."""
        if self.epochs is not None:
            return f"at epochs {', '.join(map(str, self.epochs))}"
        return "every epoch" if self.every_n_epochs == 1 else f"every {self.every_n_epochs} epochs"

    def due(self, epochs_completed: int, last_epoch: int | None = None) -> bool:
        """Whether to measure after this number of epochs; ``last_epoch`` is None if unknown."""
        if self.epochs is not None:
            return epochs_completed in self.epochs
        return epochs_completed % self.every_n_epochs == 0 or epochs_completed == last_epoch
