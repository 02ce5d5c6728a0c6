"""Files with one JSON value per line, appended as results become known."""

import json
from pathlib import Path


def append(path, known):
    with Path(path).open("a") as file:
        file.write(json.dumps(known) + "\n")


def read(path):
    """Read all whole lines; the last one may be cut if its writer was killed."""
    text = Path(path).read_text() if Path(path).exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
