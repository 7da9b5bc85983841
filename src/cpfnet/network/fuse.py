"""The same logits from less work, once the weights no longer change."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from monai.networks.nets.resnet import ResNetBlock, ResNetBottleneck
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cpfnet.network.blocks import resize
from cpfnet.network.decoder import DecoderBlock, Head
from cpfnet.network.depthwise import DepthwiseConv
from cpfnet.network.encoder import ResNetEncoder
from cpfnet.network.guide import GuideGPG
from cpfnet.network.hr import CPFNetHR
from cpfnet.network.sapf import DILATIONS, ScaleAwarePyramidFusion

Convolution = nn.Conv2d | nn.Conv3d


def fuse(network: nn.Module) -> nn.Module:
    """A copy for inference that gives the same logits, up to rounding.

    - A batch normalisation after a convolution becomes part of its kernel and bias.
    - A 1×1 convolution (with its normalisation) commutes with linear interpolation, whose weights add up to 1: it runs
      on the small map, so that only the ReLU stays after resizing.
    - Two 1×1 convolutions with nothing in between are one (the guide's GPG).
    - Layers that only training needs are left out.

    The parts of other networks do not change here; the backend that runs them optimises them.

    Args:
        network: trained; it is not changed.

    Returns:
        A network in evaluation mode, which cannot be trained.
    """
    return _rewritten(copy.deepcopy(network).eval())


def _rewritten(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, _rewritten(child))
    in_order = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    if in_order or isinstance(module, (ResNetBlock, ResNetBottleneck, ResNetEncoder)):
        _fold(module)
    if isinstance(module, CPFNetHR):
        module.guesses = nn.ModuleList()
    match module:
        case DecoderBlock():
            return ReducedFirst(module)
        case Head():
            return HeadReducedFirst(module)
        case ScaleAwarePyramidFusion():
            return FoldedSAPF(module)
        case GuideGPG():
            return MergedGuideGPG(module)
    return module


def _fold(module: nn.Module) -> None:
    """Fold each batch normalisation into the convolution before it; children run in the order of their names."""
    for (name, layer), (following, bn) in pairwise(list(module.named_children())):
        if isinstance(bn, (nn.BatchNorm2d, nn.BatchNorm3d)):
            if isinstance(layer, DepthwiseConv):
                layer.conv = fuse_conv_bn_eval(layer.conv, bn)
            elif isinstance(layer, Convolution):
                setattr(module, name, fuse_conv_bn_eval(layer, bn))
            else:
                continue
            setattr(module, following, nn.Identity())


class ReducedFirst(nn.Module):
    """`DecoderBlock` with its 1×1 convolution before the resizing."""

    def __init__(self, block: DecoderBlock) -> None:
        super().__init__()
        self.refine, self.reduce = block.refine, cast(nn.Module, block.reduce.conv)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """``(N, in_channels, *spatial)`` → ``(N, out_channels, *size)``."""
        return F.relu(resize(self.reduce(self.refine(x)), size))


class HeadReducedFirst(nn.Module):
    """`Head` with its first 1×1 convolution before the resizing."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.reduce, self.refine, self.classify = cast(nn.Module, head.reduce.conv), head.refine, head.classify

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """``(N, in_channels, *spatial)`` → logits ``(N, classes, *size)``."""
        return self.classify(self.refine(F.relu(resize(self.reduce(x), size))))


class FoldedSAPF(nn.Module):
    """`ScaleAwarePyramidFusion` with one kernel a dilation, each with the normalisation of its branch folded in."""

    def __init__(self, sapf: ScaleAwarePyramidFusion) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        for dilation, bn in zip(DILATIONS, sapf.bns, strict=True):
            conv = copy.deepcopy(sapf.conv)
            axes = len(conv.kernel_size)
            conv.padding = conv.dilation = (dilation,) * axes
            if dilation > 1:
                conv.bias = None
            self.convs.append(fuse_conv_bn_eval(conv, cast(nn.BatchNorm2d, bn)))
        self.sam, self.gamma, self.out = sapf.sam, sapf.gamma, sapf.out

    def forward(self, x: Tensor) -> Tensor:
        """``(N, channels, *spatial)`` → the same shape."""
        near, middle, far = (conv(x) for conv in self.convs)
        fused = self.sam(self.sam(near, middle), far)
        return self.out(F.relu(self.gamma * fused + (1 - self.gamma) * x))


class MergedGuideGPG(nn.Module):
    """`GuideGPG` with the 1×1 convolutions of its branches and the one that merges them as one convolution."""

    def __init__(self, gpg: GuideGPG) -> None:
        super().__init__()
        self.project_skip, self.project_deep = gpg.project_skip, gpg.project_deep
        self.depthwise = nn.ModuleList(branch[0] for branch in gpg.branches)  # type: ignore[index]
        merge = copy.deepcopy(gpg.merge)
        with torch.no_grad():
            shares = merge.weight.chunk(len(gpg.branches), dim=1)
            points = [cast(Convolution, branch[1]) for branch in gpg.branches]  # type: ignore[index]
            kernels = [torch.einsum("om...,mi...->oi...", s, p.weight) for s, p in zip(shares, points, strict=True)]
            biases = [s.flatten(1) @ cast(Tensor, p.bias) for s, p in zip(shares, points, strict=True)]
            merge.weight.copy_(torch.cat(kernels, dim=1))
            merge.bias.add_(torch.stack(biases).sum(dim=0))  # type: ignore[union-attr]
        self.merge = merge

    def forward(self, skip: Tensor, deep: Tensor) -> Tensor:
        """``(N, width, *size of the skip)``."""
        fused = self.project_skip(skip) + resize(self.project_deep(deep), skip.shape[2:], align_corners=False)
        return self.merge(torch.cat([branch(fused) for branch in self.depthwise], dim=1))
