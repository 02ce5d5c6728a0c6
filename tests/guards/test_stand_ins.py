"""What is used instead of iterators and caches goes on where they are, and leaves them there."""

import sys
from functools import lru_cache
from itertools import accumulate, chain, count, cycle, islice

import pytest

from lightning_nc.guards.stand_ins import stand_in

NUMBERS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
ITERATORS = {
    "of a list": lambda: iter(NUMBERS),
    "of a tuple": lambda: iter(tuple(NUMBERS)),
    "of a range": lambda: iter(range(3, 30, 2)),
    "of a dictionary": lambda: iter(dict.fromkeys(range(20))),
    "of a text": lambda: iter("equi-separation"),
    "reversed": lambda: reversed(NUMBERS),
    "enumerate": lambda: enumerate(NUMBERS),
    "map": lambda: map(str, NUMBERS),
    "zip": lambda: zip(NUMBERS, range(20), strict=False),
    "filter": lambda: filter(None, NUMBERS),
}
OF_ITERTOOLS = {
    "chain": lambda: chain(NUMBERS, NUMBERS),
    "count": lambda: count(3),
    "cycle": lambda: cycle(NUMBERS[:3]),
    "cycle over pairs": lambda: cycle(enumerate(NUMBERS[:3])),
    "islice": lambda: islice(count(), 2, None),
    "accumulate": lambda: accumulate(NUMBERS),
}
if sys.version_info < (3, 14):  # which has no copies of these any more
    ITERATORS |= OF_ITERTOOLS


def advanced(iterator, steps):
    return [next(iterator) for _ in range(steps)]


def never():
    pytest.fail("it is told that the iterator itself goes on")


@pytest.mark.parametrize("drawn", [0, 2, 4])
@pytest.mark.parametrize("kind", ITERATORS)
def test_a_copy_of_an_iterator_goes_on_where_it_is_and_leaves_it_there(kind, drawn):
    iterator, same = ITERATORS[kind](), ITERATORS[kind]()
    assert advanced(iterator, drawn) == advanced(same, drawn)
    expected = advanced(same, 7)
    assert advanced(stand_in(iterator, never), 7) == expected
    assert advanced(stand_in(iterator, never), 7) == expected
    assert advanced(iterator, 7) == expected


def test_of_what_cannot_be_copied_it_is_told_that_it_goes_on():
    def draw():
        given = yield 1
        yield given

    told = []
    watched = stand_in(draw(), lambda: told.append(True))
    assert next(watched) == 1
    assert watched.send(2) == 2
    watched.close()
    assert watched.gi_frame is None
    assert len(told) == 3


def test_a_cache_stays_as_it_is():
    calls = []

    @lru_cache(maxsize=2)
    def square(x):
        calls.append(x)
        return x * x

    square(2)
    before, other = square.cache_info(), stand_in(square, never)
    assert [other(2), other(3), other(3)] == [4, 9, 9]
    assert calls == [2, 2, 3]  # its stand-in begins empty, and is a cache of the same size
    assert other.cache_info().maxsize == 2
    assert square.cache_info() == before
