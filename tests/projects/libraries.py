"""Which layers and heads are found in networks of timm and torchvision, as in docs/projects.md.

``python -m tests.projects.libraries`` prints the table, for those of the two that are installed.
Nothing else needs them. Weights are random, and images are small.
"""

import re
from importlib import import_module

import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_nc import EquiSeparation, NeuralCollapse, check

SMALL_VIT = {"img_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 96, "num_heads": 3}
# name: size of images, and options
OF_TIMM = {
    "resnet18": (32, {}),
    "regnetx_002": (32, {}),
    "densenet121": (32, {"block_config": (2, 2, 2)}),
    "efficientnet_b0": (32, {}),
    "mobilenetv3_small_050": (32, {}),
    "convnext_atto": (32, {}),
    "nf_resnet26": (32, {}),
    "hrnet_w18_small": (64, {}),
    "dpn48b": (32, {}),
    "vgg11": (32, {}),
    "vit_tiny_patch16_224": (32, SMALL_VIT | {"reg_tokens": 4}),
    "deit3_small_patch16_224": (32, SMALL_VIT),
    "deit_tiny_distilled_patch16_224": (32, SMALL_VIT),
    "cait_xxs24_224": (32, SMALL_VIT),
    "beit_base_patch16_224": (32, SMALL_VIT),
    "swin_tiny_patch4_window7_224": (32, {"img_size": 32, "window_size": 4, "patch_size": 2}),
    "pvt_v2_b0": (64, {}),
    "poolformer_s12": (32, {}),
    "mobilevit_xxs": (64, {}),
    "maxvit_nano_rw_256": (64, {"img_size": 64}),
}
OF_TORCHVISION = {
    "squeezenet1_1": (64, {}),
    "alexnet": (64, {}),
    "shufflenet_v2_x0_5": (32, {}),
    "googlenet": (64, {"aux_logits": False, "init_weights": False}),
    "mnasnet0_5": (32, {}),
}


def row(name: str, net: nn.Module, size: int) -> str:
    """A row of the table: the layers, what they are, the head, and what pooling was chosen."""
    data = TensorDataset(torch.randn(8, 3, size, size), torch.arange(8) % 4)
    found = check(net, data, [EquiSeparation(), NeuralCollapse()])
    layers = [layer for layer in found.layers if layer != "input"]
    modules = [net.get_submodule(re.sub(r"-\d+$", "", layer)) for layer in layers]
    kinds = ", ".join(dict.fromkeys(type(each).__name__ for each in modules))
    pooling = ", ".join(dict.fromkeys(found.pooling.values()))
    shown = f"`{layers[0]}` … `{layers[-1]}`"
    return f"| {name} | {len(layers)} {kinds}: {shown} | `{found.head}` | {pooling} |"


def main() -> None:
    """Print the table."""
    print("| network | layers after the input | head | pooling |\n| --- | --- | --- | --- |")
    for library, networks in (("timm", OF_TIMM), ("torchvision.models", OF_TORCHVISION)):
        try:
            module = import_module(library)
        except ImportError:
            continue
        make = getattr(module, "create_model", getattr(module, "get_model", None))
        for name, (size, options) in networks.items():
            print(
                row(
                    f"{library.partition('.')[0]} {name}",
                    make(name, num_classes=4, **options),
                    size,
                )
            )


if __name__ == "__main__":
    main()
