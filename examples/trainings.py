"""Trainings of feed-forward networks that are made once, for all seeds and examples that need them.

What `feed_forward.train` returns is kept as JSON in ``.artifacts/trainings``. The name of a file is
a digest of the setting and of the code that decides the values, so that a change of either trains
again. Each file says at which commit it was made.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from feed_forward import Setting, train
from verdicts import COMMIT, ROOT

KEPT = ROOT / ".artifacts" / "trainings"
CODE = ("example_setup.py", "fashion_mnist.py", "feed_forward.py", "image_sets.py")


def digest_of_code() -> str:
    """A digest of the modules that decide the values, and of the release of torch."""
    paths = [ROOT / "examples" / name for name in CODE]
    paths += sorted((ROOT / "lightning_nc").rglob("*.py"))
    digest = hashlib.sha256(torch.__version__.encode())
    for path in paths:
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


@dataclass
class Trainings:
    """Trains, or reads what was kept.

    Attributes:
        folder: Folder of FashionMNIST.
        kept: Folder of the files.
        commits: How many of the trainings asked for were made at which commit.
    """

    folder: Path
    kept: Path = KEPT
    code: str = field(default_factory=digest_of_code)
    commits: Counter[str] = field(default_factory=Counter)

    def of(
        self, setting: Setting, epochs: Sequence[int], folder: Path | None = None, **options: bool
    ) -> list[dict[str, Any]]:
        """What `feed_forward.train` returns.

        Args:
            setting: The network and its training.
            epochs: Epochs to measure after.
            folder: Folder of the data, if it is not FashionMNIST.
            **options: Further options of `feed_forward.train`.
        """
        folder = folder or self.folder
        asked = {"setting": asdict(setting), "epochs": list(epochs), "folder": str(folder)}
        asked |= options
        key = hashlib.sha256((self.code + json.dumps(asked)).encode()).hexdigest()[:20]
        path = self.kept / f"{key}.json"
        if not path.exists():
            measured = train(setting, epochs, folder=folder, **options)
            print(f"{setting}: r {measured[-1]['pearson_r']:.4f}", flush=True)
            made = {"commit": COMMIT, **asked, "measurements": measured}
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(made))
            partial.replace(path)
        made = json.loads(path.read_text())
        self.commits[made["commit"]] += 1
        return made["measurements"]

    def made(self) -> str:
        """How many trainings were made at which commit, as text."""
        return ", ".join(
            f"{count} at {commit[:12]}{commit[40:]}" for commit, count in self.commits.items()
        )
