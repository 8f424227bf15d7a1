"""The initialization that all nets of our own share."""

from torch import nn


def kaiming(model: nn.Module) -> None:
    """He initialization (arXiv 1502.01852) of every convolution, in place; BatchNorm and Linear keep PyTorch's."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            # Fan-in, because PyTorch's fan-out of a depthwise convolution ignores its groups and is C times too large.
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
