"""Pictures of pages in headless Chromium, kept in .artifacts to be looked at.

``python -m tests.browser PAGE WIDTH,HEIGHT PICTURE`` takes one for the documents, in 256 colours.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from matplotlib.image import imread

ARTIFACTS = Path(os.environ.get("TEST_ARTIFACTS", Path(__file__).parents[1] / ".artifacts"))
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
absent = CHROMIUM is None and "REQUIRE_CHROMIUM" not in os.environ  # CI fails without it
needs_chromium = pytest.mark.skipif(absent, reason="no chromium")


def picture(address, name, size, *flags):
    """The pixels of a page, shape (height, width, 3); the picture is kept under this name."""
    path = ARTIFACTS / f"{name}.png"
    path.parent.mkdir(exist_ok=True, parents=True)
    path.unlink(missing_ok=True)
    _open(address, size, f"--screenshot={path}", *flags)
    pixels = imread(path)[..., :3]
    assert ",".join(map(str, reversed(pixels.shape[:2]))) == size
    return pixels


def dom_of(address, size):
    """The HTML of a page when its scripts have run."""
    return _open(address, size, "--dump-dom")


def _open(address, size, *flags):
    """Open a page, and return what is printed."""
    assert CHROMIUM is not None, "REQUIRE_CHROMIUM is set, and there is no chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        own = [f"--user-data-dir={profile}", f"--window-size={size}"]
        command = [CHROMIUM, *FLAGS, *own, *flags, address]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    return done.stdout


def share_of_rows_with_ink(pixels):
    """The share of rows of pixels that have words or curves."""
    return (pixels.min(axis=2) < 0.5).any(axis=1).mean()


if __name__ == "__main__":
    from PIL import Image

    page, size, target = sys.argv[1:]
    picture(Path(page).resolve().as_uri(), "of_the_documents", size)
    taken = Image.open(ARTIFACTS / "of_the_documents.png").convert("RGB")
    closest = {"method": Image.Quantize.MAXCOVERAGE, "kmeans": 1, "dither": Image.Dither.NONE}
    taken.quantize(256, **closest).save(target, optimize=True)
