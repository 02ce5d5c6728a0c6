import numpy as np
import pytest

from tests import nets
from tests.browser import needs_chromium, picture, share_of_rows_with_ink

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)


@needs_chromium
@pytest.mark.parametrize(("name", "size"), [("report", "1200,3000"), ("report_phone", "500,3000")])
def test_a_browser_shows_the_page(name, size, drawn, tmp_path):
    page = tmp_path / "report.html"
    page.write_text(drawn, encoding="utf-8")
    pixels = picture(page.as_uri(), name, size)
    curve = np.array([0x00, 0x72, 0xB2]) / 255  # of the curves, and of the rule at the top
    assert (np.abs(pixels - curve).max(axis=2) < 0.05).sum() > 3_000
    assert share_of_rows_with_ink(pixels) > 0.3
