"""Event files that are damaged: the page says what cannot be read, and shows the rest."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import nets
from tests.report.logs import FUZZ, damaged, damages, nc1, shown_or_a_sentence, write, write_events

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


def records_of(data):
    """Where each record of an event file begins and ends."""
    places, start = [], 0
    while start < len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        places.append((start, start + length + 16))
        start = places[-1][1]
    return places


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("within", [1, 8, 10, 12, 20, -4, -1])
def test_event_files_that_are_cut_off_anywhere_are_shown_up_to_there(within, tmp_path):
    path = write_events(tmp_path, steps=4)
    data = path.read_bytes()
    start, end = records_of(data)[-4]  # the first record of the last step, that of NC1
    path.write_bytes(data[: within + (start if within > 0 else end)])
    values, (remark,) = nc1(tmp_path)
    assert values == [4, 4, 4]
    assert f"at byte {start}: the last record, which has no end" in remark


@pytest.mark.usefixtures("without_pictures")
def test_a_damaged_record_is_left_out_and_after_a_damaged_length_the_rest(tmp_path):
    path = write_events(tmp_path, steps=3)
    data = path.read_bytes()
    start, end = records_of(data)[-8]  # NC1 of the second step
    path.write_bytes(data[: end - 5] + bytes([data[end - 5] ^ 1]) + data[end - 4 :])
    values, (remark,) = nc1(tmp_path)
    assert math.isnan(values[1])
    assert (values[0], values[2]) == (4, 4)
    assert f"at byte {start}: a record with a wrong checksum is left out" in remark
    path.write_bytes(data[:start] + bytes([data[start] ^ 1]) + data[start + 1 :])
    values, (remark,) = nc1(tmp_path)
    assert values == [4]
    assert f"at byte {start}: it is damaged, or no event file" in remark


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    return write_events(tmp_path_factory.mktemp("events")).read_bytes()


@pytest.mark.usefixtures("without_pictures")
@FUZZ
@given(data=st.data())
def test_no_event_file_ends_in_a_traceback(data, events, tmp_path):
    write(tmp_path, damaged(events, data.draw(damages(events))), "events.out.tfevents.1.host.1.0")
    shown_or_a_sentence(tmp_path)
