"""Drop-in convolutions: one idea per file, one word in conf/conv per class.

    standard     nn.Conv2d itself, with the claims that every variant makes about itself
    decoupled    magnitude times angle, not the inner product: Sphere, Ball, Tanh, Linear, Seg, Log, Mix
    orthogonal   kernels that are orthonormal by construction: Householder reflections
    local        unshared weights: a kernel for each position, or t x t kernels in turns
    frozen       random filters that are never trained
    gabor        a bank of Gabor functions, frozen or trained
    kmeans       distances to k-means centroids of whitened patches, fitted before the training
    skew_orthogonal  orthogonal as an operator: the exponential of a skew-symmetric convolution
    cayley       orthogonal as an operator on the torus: a Cayley map at every frequency
    flipped      true convolution: the kernel mirrored, as the textbook writes it
    im2col       the matrix product written out: the readable reference
    fft          the product of spectra, for large kernels
    grouped      channels in groups, and the shuffle that mixes them
    separable    chains of thinner convolutions: depthwise and spatially separable
    flattened    filters that are outer products of three vectors
    shufflenet   ShuffleNet's unit

    decoupling   what the decoupled ones share: their knobs and their forward pass
    isometry     what skew_orthogonal and cayley share: the frame in which a stride is none
    blockwise    a function of a batch, a few examples at a time, recomputed in the backward pass
    patch_norm   the length of every patch, for any convolution that needs it
    geometry     padding, output size and multiply-accumulates from nn.Conv2d's attributes
    precision    float32 at least: autocast off, tensors widened
    lipschitz    how much a linear one can stretch an image

A variant is a class whose constructor is nn.Conv2d's plus keyword-only knobs. What it claims about itself
(`linear`, `equivariant`, `is_convolution`, `violation()`, `lipschitz()`, `macs()`) is held against it by
tests/test_conv.py.
"""

from torch import nn


def layers(net: nn.Module) -> dict[str, nn.Module]:
    """The convolutions of a net by name, whatever their class; convolutions inside a convolution are its own.

    >>> list(layers(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(8, 8, 3)))))
    ['0', '2.0']
    """
    outermost: dict[str, nn.Module] = {}
    seen: set[nn.Module] = set()
    for name, module in net.named_modules():
        if module not in seen and all(
            hasattr(module, a) for a in ("in_channels", "out_channels", "kernel_size")
        ):
            outermost[name] = module
            seen.update(module.modules())
    return outermost
