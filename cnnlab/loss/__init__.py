"""Losses, `loss(scores, targets)` -> scalar: sums over classes or outputs, the mean over the batch.

    cross_entropy  of the softmax over the classes
    hinge          the multiclass SVM, and its square
    hierarchical   a softmax at each node of a tree of classes
    attributes     several yes or no answers at once: hinge, cross entropy
    regression     distances to values: squared L2, L1
    structured     the SVM of whole chains of labels
    decoder        the best chain for some scores: what structured searches with

A loss is any nn.Module that takes scores and targets. It may have besides

    targets               what it judges: "class", "attributes", "values" or "chain"; other data are refused
    prepare(n, **known)   called once, before the net is built, with the number of classes, attributes, values
                          or labels, and what else the data know: `superclasses`, or `length` of the chains
    outputs(n)            how many scores the net must give, where not n
    class_scores(scores)  (N, outputs) -> (N, classes), where the scores are not those of the classes
    decode(scores)        (N, outputs) -> the best chains (N, length)
    at_random(n)          its value where all scores are 0, as of a net that knows nothing yet
"""

from cnnlab.loss.attributes import AttributeHingeLoss, BinaryCrossEntropyLoss
from cnnlab.loss.cross_entropy import CrossEntropyLoss
from cnnlab.loss.hierarchical import HierarchicalSoftmaxLoss
from cnnlab.loss.hinge import HingeLoss, SquaredHingeLoss
from cnnlab.loss.regression import L1Loss, L2Loss
from cnnlab.loss.structured import StructuredHingeLoss

__all__ = [
    "AttributeHingeLoss",
    "BinaryCrossEntropyLoss",
    "CrossEntropyLoss",
    "HierarchicalSoftmaxLoss",
    "HingeLoss",
    "L1Loss",
    "L2Loss",
    "SquaredHingeLoss",
    "StructuredHingeLoss",
]
