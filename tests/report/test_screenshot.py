import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from tests import nets

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

# kept after a run, to be looked at
ARTIFACTS = Path(os.environ.get("TEST_ARTIFACTS", Path(__file__).parents[2] / ".artifacts"))
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
chromium = shutil.which("chromium")
absent = chromium is None and "REQUIRE_CHROMIUM" not in os.environ  # CI fails without it


@pytest.mark.skipif(absent, reason="no chromium")
@pytest.mark.parametrize(("name", "size"), [("report", "1200,3000"), ("report_phone", "500,3000")])
def test_a_browser_shows_the_page(name, size, drawn, tmp_path):
    assert chromium is not None, "REQUIRE_CHROMIUM is set, and there is no chromium"
    page, picture = tmp_path / "report.html", ARTIFACTS / f"{name}.png"
    page.write_text(drawn, encoding="utf-8")
    ARTIFACTS.mkdir(exist_ok=True, parents=True)
    picture.unlink(missing_ok=True)
    own = [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}"]
    subprocess.run(
        [chromium, *FLAGS, *own, f"--window-size={size}", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=600,
    )
    pixels = torch.from_numpy(imread(picture).copy())[..., :3]
    assert ",".join(map(str, reversed(pixels.shape[:2]))) == size
    curve = torch.tensor([0x00, 0x72, 0xB2]) / 255  # of the curves, and of the rule at the top
    assert int(((pixels - curve).abs().amax(-1) < 0.05).sum()) > 3_000
    rows_with_ink = ((pixels.amin(-1) < 0.5).any(1)).float().mean()
    assert rows_with_ink > 0.3  # words and curves all the way down
