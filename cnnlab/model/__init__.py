"""Architectures, one a file: `Class(input_shape, classes, *, conv, activation, pooling, ...)` -> scores.

    convnet         the textbook's blocks of convolutions and pools, of any size: the default
    linear, mlp     no convolution at all
    singla          the network of the article on orthogonal kernels
    convpool_cnn_c  three convolutions and a pool, twice, and a global average
    all_cnn_c       the same, with strides instead of pools
    resnet          residual blocks for small images, with batch norm or without
    spherenet9      the network of hyperspherical learning
    alexnet         large images, grouped convolutions

    stack           what their features are built with: channels, widths, sizes
    dense           what turns features into scores, sliding over larger images where asked

`conv`, `activation` and `pooling` are factories: a model calls `conv(in, out, kernel_size, padding="same")`,
as nn.Conv2d, and `activation()` and `pooling()` once for each use, in the order of the layers. Their
`expansion` (1 where they have none) multiplies the channels. A model ignores what it has no place for.
"""
