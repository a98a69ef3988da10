"""The k nearest of many points, exactly: of points equally far the earlier one is nearer."""

import torch
from torch import Tensor

HELD = 2**25  # numbers at a time: 128 MB of float32
SPARE = 32  # points beyond k that are looked at closely


def nearest(queries: Tensor, points: Tensor, k: int, metric: str) -> Tensor:
    """Indices of the k points nearest to each query, the nearest first; metric is l2 or l1.

    Shape: queries (N, D), points (M, D) of float32 -> (N, k), k at most M

    >>> points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 6.0], [0.0, -6.0]])
    >>> nearest(torch.zeros(1, 2), points, 4, "l2"), nearest(torch.zeros(1, 2), points, 3, "l1")
    (tensor([[0, 1, 2, 3]]), tensor([[0, 2, 3]]))
    """
    if not k:
        return torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    search = euclidean if metric == "l2" else manhattan
    return torch.cat([search(each, points, k) for each in queries.split(max(1, HELD // len(points)))])


def euclidean(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """By l2: one matrix product finds candidates, their differences in float64 decide.

    Rounding moves |y|^2 - 2 x.y by less than `slack`. So once the k-th candidate is nearer than the last of
    all candidates by that much, no other point can be as near; until then there are more candidates.
    """
    norms = torch.linalg.vector_norm(points, dim=1)
    rough = torch.addmm(norms.square(), queries, points.T, alpha=-2)  # (N, M); |x|^2 is the same for all y
    lengths = torch.linalg.vector_norm(queries.double(), dim=1)
    dimensions = queries.shape[1] + 8
    slack = 2 * torch.finfo(torch.float32).eps * dimensions * norms.max() * (lengths + norms.max())
    found = torch.empty(len(queries), k, dtype=torch.int64, device=queries.device)
    left, candidates = torch.arange(len(queries), device=queries.device), k + SPARE
    while len(left):
        candidates = min(candidates, len(points))
        bound, near = rough[left].topk(candidates, largest=False)
        near = near.sort().values  # (left, candidates)
        far = torch.stack(
            [
                (points[columns].double() - queries[row].double()).square().sum(1)
                for row, columns in zip(left.tolist(), near, strict=True)
            ]
        )
        order = far.argsort(stable=True)[:, :k]
        found[left] = near.gather(1, order)
        last = far.gather(1, order[:, -1:])[:, 0] - lengths[left].square()
        sure = last + slack[left] < bound[:, -1] if candidates < len(points) else torch.ones_like(last).bool()
        left, candidates = left[~sure], 8 * candidates
    return found


def manhattan(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """By l1: all distances in float64."""
    chunks = points.split(max(1, HELD // 8 // points.shape[1]))  # float64 copies of a few points at a time
    far = torch.cat([torch.cdist(queries.double(), chunk.double(), p=1) for chunk in chunks], 1)
    last, columns = far.topk(k, largest=False)  # of equals any
    crowded = (far <= last[:, -1:]).sum(1) > k
    columns[crowded] = far[crowded].argsort(stable=True)[:, :k]
    columns = columns.sort().values
    return columns.gather(1, far.gather(1, columns).argsort(stable=True))
