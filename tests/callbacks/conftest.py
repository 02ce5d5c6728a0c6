"""What tests of callbacks share."""

import pytest


@pytest.fixture(scope="module")
def offline():
    """Runs of W&B are written to disk, and nothing is printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        yield
