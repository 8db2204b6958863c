"""Well-known networks, a file each. A function gives the graph, with the outputs logits, loss and accuracy.

    from networks import resnet18  # with examples/ on the path, as for the programs in it

Sizes are arguments: resnet18(classes=4, size=32, width=8) is the same network for a quick try.
"""

from .cnn1d import cnn1d
from .densenet import densenet_bc
from .lenet import lenet
from .mlp import mlp
from .mobilenet_v2 import mobilenet_v2
from .resnet import resnet18, resnet34, resnet50
from .resnet_cifar import resnet20, resnet_cifar
from .unet import unet
from .vgg import vgg_small
from .wide_resnet import wide_resnet

__all__ = [
    "cnn1d",
    "densenet_bc",
    "lenet",
    "mlp",
    "mobilenet_v2",
    "resnet18",
    "resnet20",
    "resnet34",
    "resnet50",
    "resnet_cifar",
    "unet",
    "vgg_small",
    "wide_resnet",
]
