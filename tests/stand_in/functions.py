"""The functions of ``torch.cuda`` that a torch without CUDA lacks."""

import contextlib
import time
import types
import warnings

import torch
import torch._dynamo  # before a card can be seen, since it looks for parts of torch's own
import torch._inductor.utils

from tests.stand_in import building

NAME = "a stand-in for a card"
CAPABILITY = 8, 0


def install(library):
    """Make ``torch.cuda`` find the stand-in.

    Args:
        library: Path of the compiled stand-in, which was loaded before torch.
    """
    card = building.imported(library)
    for name, value in [*_device(card).items(), *_memory(card).items(), *_waits(card).items()]:
        setattr(torch.cuda, name, value)
    # `torch.cuda.random` has names of its own for these
    torch.cuda.random.device_count = torch.cuda.device_count
    torch.cuda.random.current_device = torch.cuda.current_device
    torch.cuda.random._lazy_init = torch.cuda._lazy_init
    torch._C._cuda_getDevice = torch.cuda.current_device
    torch.backends.cuda.is_built = lambda: True
    torch.Tensor.record_stream = lambda tensor, stream: None
    _copy_storages()


def _device(card):
    properties = types.SimpleNamespace(
        name=NAME, total_memory=card.capacity, major=8, minor=0, multi_processor_count=1
    )
    return {
        "_lazy_init": lambda: None,
        "_initialized": True,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "_exchange_device": lambda index: 0,
        "_maybe_exchange_device": lambda index: 0,
        "default_generators": (card.default_generator(),),
        "get_device_properties": lambda device=None: properties,
        "get_device_name": lambda device=None: NAME,
        "get_device_capability": lambda device=None: CAPABILITY,
        "is_bf16_supported": lambda including_emulation=True: True,
    }


def _memory(card):
    fraction = [1.0]

    def mem_get_info(device=None):
        return card.capacity - card.allocated(), card.capacity

    return {
        "memory_allocated": lambda device=None: card.allocated(),
        "memory_reserved": lambda device=None: card.allocated(),
        "max_memory_allocated": lambda device=None: card.peak(),
        "max_memory_reserved": lambda device=None: card.peak(),
        "reset_peak_memory_stats": lambda device=None: card.forget_peak(),
        "memory_stats": lambda device=None: {},
        "mem_get_info": mem_get_info,
        "get_per_process_memory_fraction": lambda device=None: fraction[0],
        "set_per_process_memory_fraction": lambda value, device=None: fraction.insert(0, value),
        "empty_cache": lambda: None,
    }


def _waits(card):
    mode = ["default"]

    def tell(what):
        if mode[0] == "warn":
            warnings.warn(f"called a synchronizing CUDA operation ({what})", stacklevel=2)

    card.tell_of_waits(tell)
    return {
        "set_sync_debug_mode": lambda wanted: mode.__setitem__(0, wanted),
        "synchronize": lambda device=None: None,
        "Event": Event,
        "Stream": Stream,
        "current_stream": lambda device=None: Stream(),
        "default_stream": lambda device=None: Stream(),
        "stream": lambda stream: contextlib.nullcontext(),
    }


class Event:
    """A point in time: all work before it is done."""

    def __init__(self, *args, **options):
        self.seconds = None

    def record(self, stream=None):
        self.seconds = time.perf_counter()

    def elapsed_time(self, later):
        return 1e3 * (later.seconds - self.seconds)

    def query(self):
        return True

    def synchronize(self):
        pass

    wait = synchronize


class Stream:
    """The only queue, whose work is done as soon as it is asked for."""

    device, stream_id, device_index, device_type = torch.device("cuda", 0), 0, 0, 1

    def wait_stream(self, stream):
        pass

    wait_event = wait_stream

    def record_event(self, event=None):
        event = event or Event()
        event.record()
        return event


def _copy_storages():
    """Make storages of the stand-in be copied as tensors, which torch does by code of its own."""
    of_cpu = {name: getattr(torch.UntypedStorage, name) for name in ("clone", "cpu")}

    def copying(name):
        def copied(storage):
            if storage.device.type != "cuda":
                return of_cpu[name](storage)
            whole = torch.empty(0, dtype=torch.uint8, device="cuda").set_(storage)
            return getattr(whole, name)().untyped_storage()

        return copied

    for name in of_cpu:
        setattr(torch.UntypedStorage, name, copying(name))
