"""Tell keys of this package, and of measures like its own, from those of others."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from lightning_nc.measures import MEASURES
from lightning_nc.measures.bookkeeping import BOOKKEEPING
from lightning_nc.measures.family import Family, load_families
from lightning_nc.report.remarks import Remarks, clipped

LIGHTNINGS = "epoch"  # counted from 0; Lightning logs it with every row, ours included
STEP = "step"  # both loggers keep it with every row
_LONGEST = 1000  # letters of a key
# names of probes may contain anything, also a line break
_WHEN = re.compile(r"([^/]+)/(.+)/epochs_completed", re.DOTALL)
_FAILURES = re.compile(r"([^/]+)/(.+)/failures", re.DOTALL)

Groups = dict[str, tuple[str, str]]  # family and probe, by key


def families_of(folder: Path, names: Iterable[str], remarks: Remarks) -> dict[str, Family]:
    """Families of this package, those described in the folder, and those inferred from keys."""
    names = list(names)
    for name in names:
        if len(name) > _LONGEST:
            remarks.add(f"a key of more than {_LONGEST:,} letters is left out", clipped(name))
    known = {each.name: each for each in (Family.of(kind) for kind in MEASURES)}
    try:
        known |= {each.name: each for each in load_families(folder)}
    except FileNotFoundError:
        pass
    except Exception as error:
        why = clipped(str(error))
        remarks.add(f"the description of measures cannot be used ({why})", "lightning_nc.json")
    either = "|".join(map(re.escape, known))
    of_known = re.compile(rf"(?:.*-)?(?:{either})/.+/epochs_completed", re.DOTALL)
    ours = {row.name for row in BOOKKEEPING}
    for match in filter(None, map(_WHEN.fullmatch, _short(names))):
        family, probe = match.groups()
        start = f"{family}/{probe}/"
        of_probe = [name.removeprefix(start) for name in names if name.startswith(start)]
        if not of_known.fullmatch(match[0]) and ours <= set(of_probe):
            quantities = [name for name in of_probe if name not in ours]
            known[family] = Family.of_names(family, quantities)
    return known


def keys_to_read(names: Iterable[str], families: Iterable[str]) -> dict[str, str]:
    """The keys to read, by the logger's names for them, which may start with a user's prefix."""
    names = _short(names)
    either = "|".join(map(re.escape, families))
    ours = re.compile(rf"(?:{either})(?:_layers)?/.+/.+|{LIGHTNINGS}", re.DOTALL)
    book = re.compile(rf"(.*?-)??(?:{either})/.+/(?:epochs_completed|failures)", re.DOTALL)
    prefix = next((match[1] or "" for match in map(book.fullmatch, names) if match), "")
    keys = {name: name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    return {name: key for name, key in keys.items() if ours.fullmatch(key)}


def groups_of(keys: Iterable[str], families: Mapping[str, Family]) -> tuple[Groups, Groups]:
    """Family and probe, by the key of the time of a measurement, and by that of the failures."""
    when, failures = (
        {
            match[0]: (match[1], match[2])
            for match in map(pattern.fullmatch, keys)
            if match and match[1] in families
        }
        for pattern in (_WHEN, _FAILURES)
    )
    return when, failures


def _short(names: Iterable[str]) -> list[str]:
    """Names that are read; to compare longer ones with a pattern could take forever."""
    return [name for name in names if len(name) <= _LONGEST]
