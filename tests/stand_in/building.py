"""Compile the stand-in, and load it before torch; nothing here may import torch."""

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from importlib.metadata import version
from pathlib import Path

SOURCE = Path(__file__).with_name("card.cpp")
BUILT = Path(__file__).parents[2] / ".artifacts" / "stand_in"
WRITTEN_FOR = "2.13."  # what it replaces in torch changes from release to release
LIBRARIES = "c10", "torch_cpu", "torch", "torch_python"


def reason_against():
    """Why the stand-in cannot be used here, or None."""
    found = version("torch")
    if not found.startswith(WRITTEN_FOR) or (_torch() / "lib" / "libtorch_cuda.so").exists():
        return f"the stand-in is written for torch {WRITTEN_FOR}x without CUDA, not {found}"
    return None if shutil.which("g++") else "the stand-in is compiled by g++, which is not here"


def _torch():
    return Path(importlib.util.find_spec("torch").submodule_search_locations[0])


def build(*options):
    """The path of the compiled stand-in, which is kept until its source or torch changes.

    Args:
        options: Of the compiler.
    """
    found = _torch()
    origin = SOURCE.read_bytes() + f"{version('torch')} {found} {options}".encode()
    folder = BUILT / hashlib.sha256(origin).hexdigest()[:12]
    library = folder / "card.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        include = found / "include"
        headers = include, include / "torch/csrc/api/include", sysconfig.get_paths()["include"]
        unfinished = folder / f"card-{os.getpid()}.so"
        command = ["g++", "-shared", "-fPIC", "-O1", "-w", "-std=c++20", *options, str(SOURCE)]
        command += [f"-I{each}" for each in headers]
        command += [f"-L{found / 'lib'}", *(f"-l{each}" for each in LIBRARIES)]
        subprocess.run([*command, "-o", str(unfinished)], check=True)
        unfinished.rename(library)
    return library


def load_before_torch(library):
    """Load the stand-in, which torch finds when it first asks for a card."""
    for name in LIBRARIES:
        ctypes.CDLL(str(_torch() / "lib" / f"lib{name}.so"), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def imported(library):
    """The module of Python that the stand-in is."""
    spec = importlib.util.spec_from_file_location("card", library)
    card = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(card)
    return card
