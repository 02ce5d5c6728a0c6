"""Recover the order of layers in depth from values that were logged in order of name."""

import re
from collections.abc import Iterator, Sequence
from itertools import islice, permutations

import numpy as np

_AT_MOST = 50_000  # orders to try; enough for any eight layers between the first and the last
Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def order_in_depth(
    names: Sequence[str], fuzziness: Array, rho: Array, total: Array
) -> tuple[list[str], bool]:
    """Find the order of layers whose D matches the logged rho and total.

    In float64, only one order matches both the slope of ln D against depth, ``ln rho``, and
    ``D_last / D_first``, unless some layers always have the same D.

    Args:
        names: Layers in any order.
        fuzziness: D of each layer at each measurement, shape ``(E, T)``.
        rho: Logged rho, shape ``(E,)``.
        total: Logged ``D_last / D_first``, shape ``(E,)``.

    Returns:
        The names in order of depth, and True. If no order matches, the input first and the others
        by name, and False.
    """
    known = (np.isfinite(fuzziness) & (fuzziness > 0)).all(axis=1)
    known &= np.isfinite(rho) & np.isfinite(total) & (rho > 0) & (total > 0)
    by_name = sorted(range(len(names)), key=lambda i: _natural(names[i]))
    if known.any():
        logged = np.log(fuzziness[known]), np.log(rho[known]), np.log(total[known])
        for order in _candidates(by_name, *logged):
            if _fits(np.array(order), *logged):
                return [names[i] for i in order], True
    return [names[i] for i in by_name], len(names) < 2


def _candidates(
    by_name: list[int], ln_D: Array, slope: Array, ln_total: Array
) -> Iterator[Sequence[int]]:
    """Yield orders to try, likeliest first; ln_D has shape ``(E, T)``, the others ``(E,)``."""
    yield by_name
    # a slope is linear in ln D, with coefficients that rise with depth; as many determine these
    if len(ln_D) >= len(by_name):
        yield np.argsort(np.linalg.lstsq(ln_D, slope, rcond=None)[0]).tolist()
    first, *others = by_name
    for last in others:
        if np.allclose(ln_D[:, last] - ln_D[:, first], ln_total, rtol=0, atol=1e-9):
            between = [i for i in others if i != last]
            for middle in islice(permutations(between), _AT_MOST):
                yield first, *middle, last


def _fits(order: Array, ln_D: Array, slope: Array, ln_total: Array) -> bool:
    """Whether ln D in an order has these slopes and totals; shapes as in `_candidates`."""
    y = ln_D[:, order]
    t = np.arange(len(order)) - (len(order) - 1) / 2
    fitted = y @ t / (t @ t), y[:, -1] - y[:, 0]
    return all(
        np.allclose(ours, logged, rtol=0, atol=1e-9)
        for ours, logged in zip(fitted, (slope, ln_total), strict=True)
    )


def _natural(name: str) -> tuple[int, list[tuple[bool, int, str]]]:
    """Sort key: the input first, and 2 before 10."""
    parts = re.findall(r"\d+|\D+", name)
    digits = [part.isdecimal() for part in parts]
    named = zip(digits, parts, strict=True)
    place = {"raw_input": 0, "input": 1}.get(name, 2)
    return place, [(whole, int(p) if whole else 0, p) for whole, p in named]
