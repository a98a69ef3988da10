"""Architectures, one a file: `Class(input_shape, classes, *, conv, activation, ...)` -> scores (N, classes).

`conv` and `activation` are factories: a model calls `conv(in, out, kernel_size, padding="same")`, as
nn.Conv2d, and `activation()`, whose `expansion` (1 where it has none) multiplies the channels.
"""
