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
    for place in places:
        failing = by_rank[0][place][0]
        found = [seen[place][1] for seen in by_rank]
        of_one = found.pop(failing)
        # after the last vote, it may have failed alone
        assert len(found[0]) == len(found[1]) <= len(of_one), (place, failing, of_one, found)
