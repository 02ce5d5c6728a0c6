"""Wherever one of three processes fails, the others are not kept waiting, and know it."""

import pytest

from tests.passes.broken_anywhere import PASSES, break_everywhere
from tests.processes import run_processes


@pytest.mark.slow
@pytest.mark.parametrize("name", PASSES)
def test_no_process_waits_for_one_that_fails(name):
    by_rank = run_processes(break_everywhere, 3, name, timeout=500)
    places = list(by_rank[0])
    assert len(places) > 50
    for turn, place in enumerate(places):
        found = [seen[place][0] for seen in by_rank]
        # what fails on one fails on all, or on none: then it was caught and did no harm
        assert len({len(errors) for errors in found}) == 1, (turn, place, found)
