from cnnlab.model.convpool_cnn_c import ConvPoolCNNC
from cnnlab.model.stack import Stack


class AllCNNC(ConvPoolCNNC):
    """All-CNN-C: strided convolutions in place of ConvPool-CNN-C's pools.

    [3x3 96]*2 -> 3x3 96 /2 -> [3x3 192]*2 -> 3x3 192 /2 -> 3x3 valid 192 -> 1x1 192 -> 1x1 classes -> global
    average. It takes `pooling` as every model does, and uses none; all else is as in ConvPoolCNNC.

    Source: Springenberg et al. 2015, Striving for Simplicity, arXiv:1412.6806.
    Differs: no activation after the class scores.
    Shape: (N, C, H, W) -> (N, classes), H and W at least 9; a larger image is averaged over.

    Raises: ValueError where a knob is out of range or the input too small.

    >>> sum(p.numel() for p in AllCNNC((3, 32, 32), classes=10).parameters())  # the pools had none
    1369738
    """

    @staticmethod
    def shrink(stack: Stack, filters: int) -> None:
        stack.conv(filters, 3, stride=2)
