"""Facts about the machine: its GPU, and the versions of the software."""

import datetime
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("torch", "pytorch-lightning", "torchmetrics", "transformers", "numpy")


def of_this_machine():
    found = {
        "date": datetime.date.today().isoformat(),
        "device": "a CPU",
        "cuda": None,
        "driver": None,
        "python": platform.python_version(),
        **{name: version_of(name) for name in PACKAGES},
    }
    if torch.cuda.is_available():
        found |= {
            "device": torch.cuda.get_device_name(0),
            "cuda": torch.version.cuda,
            "driver": driver(),
        }
    return found


def version_of(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def driver():
    """The version of the GPU's driver, from nvidia-smi; None if that is missing."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip().splitlines()[0]
