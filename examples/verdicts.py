"""What an example concludes: verdicts on claims, and the file of results that decides them.

An example measures, and its function ``judge(values)`` says of each claim whether these values show
it. `conclude` judges, prints, and writes ``docs/results/<example>.json``, from which
``docs/make_reproductions.py`` makes docs/reproductions.md. Beside the values are those of controls,
without the phenomenon, in the same form: judged by the same function, each claim must fail on one.
"""

import json
import math
import platform
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
DIGITS = 7  # significant digits of the values that are kept, and judged
LIBRARIES = ("torch", "pytorch-lightning", "numpy")

Values = Mapping[str, Any]  # numbers, and mappings and lists of numbers


class Verdict(NamedTuple):
    """Whether the values of an example show a claim.

    Attributes:
        claim: Number of the claim in docs/reproductions.md, with a letter where it has parts.
        talk: What the talk or the paper shows, with its numbers.
        statement: What must be true of the values, with the threshold.
        numbers: The values that decide, as text.
        holds: Whether it is true.
    """

    claim: str
    talk: str
    statement: str
    numbers: str
    holds: bool


class Run(NamedTuple):
    """What an example has measured, and with which settings.

    Attributes:
        values: The values to judge.
        controls: Values without the phenomenon, by the name of the control.
        settings: What another person needs to know to measure the same.
        seeds: Seeds of the runs.
        differs: What is not as in the talk, and why.
        figures: Names of the figures in docs/figures.
    """

    values: Values
    controls: Mapping[str, Values]
    settings: Mapping[str, Any]
    seeds: Sequence[int]
    differs: str
    figures: Sequence[str] = ()


Judge = Callable[[Values], list[Verdict]]


def conclude(example: str, judge: Judge, run: Run, folder: Path) -> bool:
    """Print the verdicts, write the file of results, and return whether all claims hold.

    A claim that holds for every control, too, has not been shown, and counts as one that does not.

    Args:
        example: Name of the example, without ``.py``.
        judge: Its judgement.
        run: What it measured.
        folder: Where to write the file.
    """
    values = rounded(run.values)
    controls = {name: rounded(control) for name, control in run.controls.items()}
    verdicts = judge(values)
    results = {
        "example": example,
        "settings": dict(run.settings),
        "seeds": list(run.seeds),
        "differs": run.differs,
        "figures": list(run.figures),
        "commit": COMMIT,
        "versions": {"python": platform.python_version()} | {n: version(n) for n in LIBRARIES},
        "verdicts": [verdict._asdict() for verdict in verdicts],
        "values": values,
        "controls": controls,
    }
    write(results, folder)
    shown = [v.holds and bool(failed_controls(v.claim, judge, controls)) for v in verdicts]
    for verdict, so in zip(verdicts, shown, strict=True):
        print(f"{'yes' if so else 'NO '}: {verdict.statement}: {verdict.numbers}")
        if verdict.holds and not so:
            print(f"     but no control fails claim {verdict.claim}")
    return all(shown)


def write(results: Mapping[str, Any], folder: Path) -> None:
    """Write a file of results, with numbers that belong together on one line."""
    text = json.dumps(results, indent=1, allow_nan=False)
    together = re.compile(r'\{\s*(?:"[^"]*":[^"{}]*)+\}|\[[^\[\]{}"]*\]')
    path = folder / f"{results['example']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(together.sub(lambda match: " ".join(match[0].split()), text) + "\n")
    print(f"results: {path}")


def failed_controls(claim: str, judge: Judge, controls: Mapping[str, Values]) -> list[str]:
    """The names of the controls whose values do not show a claim."""
    return [
        name
        for name, control in controls.items()
        if any(v.claim == claim and not v.holds for v in judge(control))
    ]


def rounded(values: Any) -> Any:
    """Numbers as they are kept: few digits, and None where one is not finite."""
    if isinstance(values, Mapping):
        return {str(key): rounded(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [rounded(value) for value in values]
    if isinstance(values, float):
        return float(f"{values:.{DIGITS}g}") if math.isfinite(values) else None
    return values


def number(value: float | None) -> float:
    """A kept value as a number: NaN where it was not finite, so that no comparison is true."""
    return math.nan if value is None else value


def span(values: Sequence[float | None], digits: int = 3, bound: float = 1) -> str:
    """The smallest and the largest of some values, as text; one value if there is one.

    Args:
        values: The values.
        digits: Significant digits, at least.
        bound: A threshold by which they are judged.
    """
    numbers = [number(value) for value in values] or [math.nan]
    ends = dict.fromkeys(brief(end, digits, bound) for end in (min(numbers), max(numbers)))
    return " to ".join(ends)


def brief(value: float, digits: int, bound: float = 1) -> str:
    """A number as text; nothing is rounded to 1, to -1 or to the bound but these themselves."""
    bounds = {1.0, -1.0, bound} - {value}
    while float(f"{value:.{digits}g}") in bounds and digits < DIGITS:
        digits += 1
    return f"{value:.{digits}g}"


def commit() -> str:
    """The commit of the working tree, marked where code has changed since; empty without git."""
    command = ["git", "-C", str(ROOT)]
    code = ["--", "examples", "lightning_nc"]
    head = subprocess.run([*command, "rev-parse", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*command, "status", "--porcelain", *code], capture_output=True)
    return head.stdout.strip() + (" with changes" if changed.stdout else "")


COMMIT = commit()  # when the example begins: code may change while it runs
