"""What a comparison of gradients will cost, said before most of it is done."""

from lightning_nc.passes.request import KernelRequest

_LONG = 5.0  # seconds; shorter measurements are not announced


def number_of_directions(wanted: KernelRequest, num_outputs: int) -> int:
    """Return the number of output directions along which gradients are taken."""
    if callable(wanted.outputs):
        return 1
    return num_outputs if wanted.outputs == "all" else wanted.outputs


def expected_seconds(wanted: KernelRequest, directions: int, each: float) -> float:
    """Estimate how long gradients are compared, once they are checked.

    Args:
        wanted: What is compared.
        directions: The number of output directions, or one process's share of them.
        each: Seconds that a direction takes, as in `TangentKernel`.
    """
    return (2 if wanted.relative_similarity else 1) * directions * each


def announcement(wanted: KernelRequest, directions: int, samples: int, seconds: float) -> str:
    """Say what a comparison costs and what would be cheaper; empty if it is not long.

    Args:
        wanted: What is compared.
        directions: The number of output directions, over all processes.
        samples: The number of samples m.
        seconds: How long it takes: the checks and `expected_seconds`.
    """
    if seconds < _LONG:
        return ""
    cheaper = []
    if directions > 1:
        fewer = max(int(directions * _LONG / seconds), 1)
        cheaper.append(f"outputs={fewer}, an estimate from random directions")
    if wanted.samples_per_class > 2:
        cheaper.append("samples_per_class=2")
    if wanted.relative_similarity:
        cheaper.append("relative_similarity=False")
    if wanted.outputs == "all":
        cheaper.append('parameters="last_layer", which takes one forward pass')
    way_out = f" Cheaper are {'; '.join(cheaper)}." if cheaper else ""
    return (
        f"a measurement takes about {duration(seconds)}, for gradients of {directions} "
        f"output{'s' * (directions > 1)} at {samples} samples.{way_out}"
    )


def duration(seconds: float) -> str:
    """Return a number of seconds in words, in a unit that suits it.

    Example:
        >>> duration(42.0), duration(600.0), duration(7200.0)
        ('42 s', '10 min', '2 h')
    """
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"
