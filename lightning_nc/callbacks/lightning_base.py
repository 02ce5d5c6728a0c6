"""One base class for both import names of Lightning, whose class trees are separate.

To import a namespace of Lightning is to add loggers with handlers and filters of warnings, and to
take over the log that both share, so that messages return which a program has silenced. So only the
namespaces that the program itself has imported are made use of. If it has imported none yet, our
class still has to be a `Callback`, since LightningCLI looks at classes before it makes objects. It
is then that of ``pytorch_lightning``, which we depend on; it is also the one that comes after
``lightning_nc`` where imports are sorted.

A namespace that the program imports later is followed as soon as a callback is named by way of
``lightning_nc`` or made, by adding a base to the class.
"""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Callback as OfLightning
    from pytorch_lightning import Callback as OfPyTorchLightning

    # To a type checker it is always a callback of both, so that either Trainer takes it. Hooks of
    # the two differ in the Trainer that they are given. Without ``lightning`` that base is unknown.
    class CallbackBase(OfLightning, OfPyTorchLightning):  # type: ignore[misc]
        """A callback for the Trainers of both namespaces."""

else:

    def _callback_classes() -> tuple[type[Any], ...]:
        """Return the `Callback` class of each namespace that the program has imported."""
        modules = [sys.modules.get(name) for name in ("lightning.pytorch", "pytorch_lightning")]
        # a module that is still being imported has none yet
        return tuple(module.Callback for module in modules if hasattr(module, "Callback"))

    def _first_bases() -> tuple[type[Any], ...]:
        if not _callback_classes():
            import pytorch_lightning  # noqa: F401
        return _callback_classes()

    class CallbackBase(*_first_bases()):
        """A callback for the Trainers of each namespace that the program has imported."""

        def __init__(self) -> None:
            follow_imports()


def follow_imports() -> None:
    """Make our callbacks those of namespaces, too, that have been imported since."""
    if not TYPE_CHECKING:
        new = [kind for kind in _callback_classes() if kind not in CallbackBase.__bases__]
        # a class of the user's that lists its own bases in another order has none to add
        with suppress(TypeError):
            CallbackBase.__bases__ += tuple(new)


__all__ = ["CallbackBase", "follow_imports"]
