"""What takes the place of caches and iterators during a measurement, since they go one way only."""

import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

CACHE: Any = type(lru_cache(len))


def goes_one_way(kind: type) -> bool:
    """Whether values of a type are caches or iterators, and have no attributes to put back."""
    if kind is CACHE:
        return True
    if not issubclass(kind, Iterator):
        return False
    # those of loaders are entangled with their workers
    of_a_loader = kind.__module__.startswith("torch.utils.data")
    return of_a_loader or not (kind.__dictoffset__ or hasattr(kind, "__slots__"))


def stand_in(x: Any, advanced: Callable[[], None]) -> Any:
    """Return what is used in place of a cache or an iterator, which itself stays as it is.

    That is an empty cache of the same function, or a copy of the iterator, which goes on where it
    is. Of an iterator that cannot be copied, such as a generator, it is a wrapper.

    Args:
        x: The cache or iterator.
        advanced: Called when an iterator that cannot be copied goes on.
    """
    if isinstance(x, CACHE):
        return lru_cache(**x.cache_parameters())(x.__wrapped__)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of itertools, which will lose their copies
            return _copied(x)
    except Exception:
        return _Watched(x, advanced)


def _copied(iterator: Any) -> Any:
    """A copy of an iterator, with copies of those that it draws from and of what it has saved."""
    make, arguments, *state = iterator.__reduce__()
    copy = make(*map(_own, arguments))
    if state and state[0] is not None:
        parts = state[0]
        if isinstance(parts, tuple):  # what `itertools.cycle` has saved is a list
            parts = tuple(list(part) if isinstance(part, list) else _own(part) for part in parts)
        copy.__setstate__(parts)
    return copy


def _own(part: Any) -> Any:
    return _copied(part) if isinstance(part, Iterator) else part


class _Watched(Iterator[Any]):
    """An iterator that tells when it goes on."""

    def __init__(self, inner: Any, advanced: Callable[[], None]) -> None:
        self._inner, self._advanced = inner, advanced

    def __next__(self) -> Any:
        self._advanced()
        return next(self._inner)

    def __getattr__(self, name: str) -> Any:
        if name in ("send", "throw", "close"):
            self._advanced()
        return getattr(self._inner, name)
