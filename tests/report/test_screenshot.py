import math
import re

import numpy as np
import pytest

from lightning_nc.measures import SeparationMeasure
from lightning_nc.measures.family import Family
from lightning_nc.report.page import report_page
from lightning_nc.report.runs import Run, Series
from tests import nets
from tests.browser import dom_of, needs_chromium, picture, share_of_rows_with_ink

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


@needs_chromium
def test_no_name_makes_the_page_wider_than_a_phone(tmp_path):
    layers = {f"{'backbone_of_my_network' * 4}.{t}": [4.0 - t] for t in range(2)}
    series = Series([0.0], {"rho": [0.5], "pearson_r": [-1.0]}, layers, True, 1, [math.nan])
    families = [Family.of(SeparationMeasure)]
    runs = [Run("W" * 60 + end, {("separation", "train"): series}, families) for end in "ab"]
    for some in (runs[:1], runs):
        page = report_page(some).replace("<details>", "<details open>")
        width = "<script>document.title = document.documentElement.scrollWidth</script></body>"
        (tmp_path / "page.html").write_text(page.replace("</body>", width), encoding="utf-8")
        dom = dom_of((tmp_path / "page.html").as_uri(), "500,900")
        assert re.search(r"<title>(.*?)</title>", dom).group(1) == "500"
