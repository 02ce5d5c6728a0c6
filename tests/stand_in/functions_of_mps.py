"""What a torch that was not built for macOS lacks to find MPS, and what MPS itself lacks."""

import platform
from pathlib import Path

import torch
import torchgen
from torchgen.gen import parse_native_yaml
from torchgen.model import DispatchKey

from tests.stand_in import building

# those that are in torch's own list of what MPS leaves to the CPU
LEFT_TO_THE_CPU = {"_linalg_svd", "embedding_renorm_"}


def install(library):
    """Make torch and Lightning find MPS.

    Args:
        library: Path of the compiled stand-in, which was loaded before torch.
    """
    card = building.imported(library)
    card.refuse({f"aten::{name}" for name in operations_without_mps()})
    torch._C._has_mps = True
    platform.processor = lambda: "arm"


def operations_without_mps():
    """Names of operations that torch has for the CPU and not for MPS, by its own declarations."""
    folder = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native"
    declared = parse_native_yaml(str(folder / "native_functions.yaml"), str(folder / "tags.yaml"))
    by_name = {str(each.func.name): each for each in declared.native_functions}
    cpu, mps = (declared.backend_indices[key] for key in (DispatchKey.CPU, DispatchKey.MPS))
    found = set()
    for name, each in by_name.items():
        kernel = by_name[str(each.structured_delegate)] if each.structured_delegate else each
        if cpu.has_kernel(kernel) and not mps.has_kernel(kernel):
            found.add(name)
    return {name for name in found if name.split(".")[0] not in LEFT_TO_THE_CPU}
