"""Files with a piece of JSON a line, written as it becomes known."""

import json
from pathlib import Path


def append(path, known):
    with Path(path).open("a") as file:
        file.write(json.dumps(known) + "\n")


def read(path):
    """All lines; the last one may be cut, where the process that wrote it was ended."""
    text = Path(path).read_text() if Path(path).exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
