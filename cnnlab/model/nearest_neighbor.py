from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from cnnlab.allowed import one_of, whole
from cnnlab.conv.precision import full_precision, wide
from cnnlab.data.preprocessing import allocate
from cnnlab.model.neighbors import nearest
from cnnlab.model.stack import MAX_2X2, Factory


class NearestNeighbor(nn.Module):
    """Votes of the k nearest training images: all are remembered, nothing is trained.

    scores_c = log(v_c + t_c + 1/classes), with the votes v_c of the k nearest by the Euclidean distance (l2)
    or the sum of absolute differences (l1) of the preprocessed pixels. Of classes with equal votes the one
    of the nearest image wins: t_c = (1 - r/k) / 2, r = 0..k-1 the rank of the first image of class c. So
    softmax(scores) are the shares of the votes, one more vote spread over all classes. Of images equally far
    the earlier one is nearer; distances are those of float64. Of a list of k the one most accurate on
    validation is kept, of equals the smallest.

    It takes `conv`, `activation` and `pooling` as every model does, and uses none. A checkpoint holds the
    training images, preprocessed.

    Source: Cover & Hart 1967, Nearest neighbor pattern classification; CS231n, "Image classification".
    Shape: (N, C, H, W) -> (N, classes)
    Raises: ValueError where k is not one or several whole numbers >= 1, or more than there are training
        images, where metric is neither l2 nor l1, or where images are not of one class each.

    >>> net = NearestNeighbor((1, 1, 1), classes=2, k=3)
    >>> net.memorize(torch.tensor([0.0, 1.0, 5.0, 6.0]).view(4, 1, 1, 1), torch.tensor([0, 1, 1, 0]))
    >>> net(torch.tensor([[[[0.4]]], [[[4.0]]]])).exp() - 1 / 2  # 0.4 is near 0, 1, 5, and 4.0 near 5, 6, 1
    tensor([[1.5000, 2.3333],
            [1.3333, 2.5000]])
    """

    images: Tensor  # (N, C*H*W)
    labels: Tensor
    k: Tensor  # in use

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        *,
        conv: Factory = nn.Conv2d,
        activation: Factory = nn.ReLU,
        pooling: Factory = MAX_2X2,
        k: int | Sequence[int] = 1,
        metric: Literal["l2", "l1"] = "l2",
    ):
        super().__init__()
        self.classes = classes
        self.ks = sorted(
            {whole("k", each, at_least=1) for each in (k if isinstance(k, list | tuple | range) else [k])}
        )
        if not self.ks:
            raise ValueError("k must be a whole number >= 1 or a list of some, got []")
        self.metric = one_of("metric", metric, ("l2", "l1"))
        self.register_buffer("images", torch.empty(0, int(torch.Size(input_shape).numel())))
        self.register_buffer("labels", torch.empty(0, dtype=torch.int64))
        self.register_buffer("k", torch.tensor(self.ks[0]))
        self.register_load_state_dict_pre_hook(allocate)

    def memorize(self, images: Tensor, labels: Tensor) -> None:
        """Keep preprocessed training images (N, C, H, W) and their labels (N,)."""
        if self.ks[-1] > len(labels):
            raise ValueError(f"k must be at most {len(labels)}, the training images, got {self.ks[-1]}")
        if labels.ndim != 1 or labels.is_floating_point() or labels.max() >= self.classes:
            got = f"{tuple(labels.shape)} up to {labels.max():g} and {self.classes} scores"
            raise ValueError(f"neighbours vote for one class an image, with a score each: got labels {got}")
        self.images, self.labels = images.flatten(1).to(self.images), labels.to(self.labels)

    @torch.no_grad()
    def choose_k(self, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[int, float]:
        """Of several k keep the best on preprocessed images and their labels; the accuracy of each."""
        hits, count = torch.zeros(len(self.ks), dtype=torch.int64), 0
        for images, truth in batches:
            labels = self.labels[self.neighbors(images, self.ks[-1])]
            right = [(self.votes(labels[:, :k]).argmax(1) == truth).sum() for k in self.ks]
            hits += torch.stack(right).cpu()
            count += len(truth)
        self.k.fill_(self.ks[int(hits.argmax())])
        return dict(zip(self.ks, (hits / count).tolist(), strict=True))

    def forward(self, input: Tensor) -> Tensor:
        k = int(self.k) if len(self.labels) else 0  # before memorize there is nobody to vote
        return self.votes(self.labels[self.neighbors(input, k)])

    def votes(self, labels: Tensor) -> Tensor:
        """Labels of neighbours, the nearest first (N, k) -> scores (N, classes)."""
        k = labels.shape[1]
        ties = (1 - torch.arange(k, dtype=torch.float32, device=labels.device) / max(1, k)) / 2
        votes = torch.zeros(len(labels), self.classes, dtype=torch.float32, device=labels.device)
        votes.scatter_add_(1, labels, torch.ones_like(labels, dtype=torch.float32))
        votes.scatter_reduce_(1, labels, votes.gather(1, labels) + ties, "amax")
        return (votes + 1 / self.classes).log()

    @torch.no_grad()
    def neighbors(self, input: Tensor, k: int) -> Tensor:
        """Indices of the k nearest training images, the nearest first: (N, C, H, W) -> (N, k)."""
        with full_precision(input):
            return nearest(wide(input.flatten(1)), wide(self.images), k, self.metric)
