"""Put back what the user's own objects remember, or tell what could not be put back."""

import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import IOBase
from typing import Any, NamedTuple

from torch import Tensor, nn

from lightning_nc.guards.contents import CLOSED, Budget, Content, Items, is_closed
from lightning_nc.guards.names import Names, in_module
from lightning_nc.guards.reachable import GENERATORS, reachable
from lightning_nc.guards.stand_ins import goes_one_way, stand_in

_MEGABYTES_OF_NETWORK, _MEGABYTES_OF_DATA = 128, 32  # that are copied

_OF_DATA = (
    "Read the probe in a process of its own, whose data are a copy: Probe(num_workers=1). Or give "
    'the probe data of its own: Probe(source=dataset, name="my_probe").'
)
_OF_NETWORK = "Such a network cannot be measured without a trace: keep this out of its forward()."


class Memory:
    """What a network and its data remember, found and copied before a measurement.

    Put back are attributes of objects, classes and functions of the user's own, globals that these
    name, items of containers, tensors and arrays. What is beyond 128 MB of the network, 32 MB of
    the data or 5,000 objects of either is compared in evenly spaced places, and a change is told.
    An ``lru_cache`` and an iterator go one way only: an empty cache and a copy of the iterator
    stand in for them.

    The data are read where they are, since the alternatives fared worse. ``copy.deepcopy`` of a
    million paths takes 3 s, also if tensors and arrays are shared; it refuses handles and locks,
    leaves closures, classes and caches shared, and copies with a ``__del__`` close what the user
    has open. A forked worker, whose data die with it, costs 0.1 to 0.2 s for each of three readings
    that take 0.01 s in the process, and cannot use handles that are open. Finding, copying and
    comparing takes 0.02 s for 50,000 images in a tensor, 0.07 s for a million paths, and at most
    0.2 s. An object that has closed what it had open is left as it is.

    Args:
        model: The network.
        modules: Those of its modules whose attributes are restored.
        data: Datasets, functions and other objects that take part in a measurement.
        contents: Whether to restore tensors that modules hold, which copies them.

    Attributes:
        generators: The random generators among all this.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: Iterable[nn.Module],
        data: Iterable[Any] = (),
        contents: bool = True,
    ) -> None:
        self.generators: list[Any] = []
        self._kept: list[_Kept] = []
        self._replaced: list[Callable[[], None]] = []
        own = list(model.modules())
        budget = Budget(_MEGABYTES_OF_NETWORK)
        names = [in_module(module) for module in modules]
        for found in reachable(dict.fromkeys(map(type, own)), budget, own, names):
            if contents or not isinstance(found.thing, Tensor):
                self._keep(*found, budget, _OF_NETWORK)
        budget = Budget(_MEGABYTES_OF_DATA)
        for found in reachable(data, budget, own):
            self._keep(*found, budget, _OF_DATA)

    def _keep(self, thing: Any, where: str, alone: bool, budget: Budget, way_out: str) -> None:
        kept: Any = None
        if isinstance(thing, GENERATORS):
            self.generators.append(thing)
            if alone:  # what there is of them is put back with all others
                return
            kept = _State(thing)
        elif isinstance(thing, Names):
            kept = _KeptNames(thing)
        elif isinstance(thing, IOBase):
            kept = _Position(thing)
        elif Items.can_change(thing):
            kept = Items(thing, budget)
        else:
            kept = Content(thing, budget)
        self._kept.append(_Kept(kept, where, alone, way_out))

    @contextmanager
    def put_back(self, notes: dict[str, str]) -> Iterator[None]:
        """Put all back after the block, and go on where one thing fails.

        Args:
            notes: Gets sentences on what could not be put back, by topic.
        """
        try:
            self._place_stand_ins(notes)
            yield
        finally:
            contents = [each.kept for each in self._kept if isinstance(each.kept, Content)]
            restore: list[Callable[[], None]] = list(self._replaced)
            restore.append(partial(Content.compare, contents))
            restore += [partial(each.put_back, notes) for each in self._kept]
            failures: list[BaseException] = []
            for each_of_them in restore:
                try:
                    each_of_them()
                except BaseException as error:
                    failures.append(error)
            if failures:
                raise failures[0]

    def _place_stand_ins(self, notes: dict[str, str]) -> None:
        """Put others in the place of caches and iterators, until names and items are put back."""
        placed: dict[int, Any] = {}
        for kept, where, _, way_out in self._kept:
            if not isinstance(kept, _KeptNames | Items):
                continue
            for key, value in kept.one_way():
                note = partial(_note, notes, _named(where, key), "has been advanced", way_out)
                other = placed.setdefault(id(value), stand_in(value, note))
                self._replaced.append(partial(_take_away, kept, key, other, value))
                kept.assign(key, other)


def _take_away(kept: Any, key: Any, other: Any, value: Any) -> None:
    """Put a value back if its stand-in is where it was placed; this is no change."""
    with suppress(LookupError):
        if kept.at(key) is other:
            kept.assign(key, value)


def generators_reached(data: Iterable[Any]) -> list[Any]:
    """Return the random generators among what is put back, but for those of too many."""
    found = reachable(data, Budget(0))
    return [each.thing for each in found if each.alone and isinstance(each.thing, GENERATORS)]


class _Kept(NamedTuple):
    kept: Any
    where: str
    alone: bool
    way_out: str

    def put_back(self, notes: dict[str, str]) -> None:
        """Put a thing back, and note if that is not possible, or is not possible for others."""
        changed, why_not = self.kept.put_back()
        if changed and not (why_not or self.alone):
            why_not = "is one of too many to be put back"
        if why_not:
            _note(notes, self.where, why_not, self.way_out)


class _KeptNames:
    """Names and their original values."""

    def __init__(self, names: Names) -> None:
        self.names, self.before = names, names.now()
        self.assign = names.assign

    def at(self, name: str) -> Any:
        """The value of a name now."""
        return self.names.look()[name]

    def one_way(self) -> list[tuple[str, Any]]:
        """Caches and iterators, by name."""
        return [each for each in self.before.items() if goes_one_way(type(each[1]))]

    def put_back(self) -> tuple[bool, str]:
        now = self.names.now()
        added = now.keys() - self.before.keys()
        changed = [n for n, value in self.before.items() if n not in now or now[n] is not value]
        if any(is_closed(self.before[name]) for name in changed):
            return True, CLOSED
        for name in added:
            self.names.remove(name)
        for name in changed:
            self.names.assign(name, self.before[name])
        return bool(added or changed), ""


class _State:
    """The state of a random generator, to find out whether it changes."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator
        self.before = self._now()

    def _now(self) -> bytes:
        state = getattr(self.generator, "get_state", None)
        return pickle.dumps(self.generator if state is None else state())

    def put_back(self) -> tuple[bool, str]:
        return self._now() != self.before, ""


class _Position:
    """A file and where it is read next."""

    def __init__(self, file: Any) -> None:
        self.file, self.at = file, _position(file)

    def put_back(self) -> tuple[bool, str]:
        if self.at is not None and _position(self.file) not in (None, self.at):
            self.file.seek(self.at)
        return False, ""


def _position(file: Any) -> int | None:
    with suppress(Exception):  # it is closed, no file, or is read line by line
        return file.tell() if file.seekable() else None
    return None


def _named(where: str, key: Any) -> str:
    return f"{where}.{key}" if isinstance(key, str) else where


def _note(notes: dict[str, str], where: str, what: str, way_out: str) -> None:
    notes[f"memory of {where}"] = (
        f"the measurement has changed `{where}`, which {what}: training is no longer what it would "
        f"have been. {way_out}"
    )
