"""Who is better than the baseline, by how much, and whether the seeds suffice to say so."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from cnnlab.report.statistics import Estimate, estimate, holm
from cnnlab.report.variants import DEFAULT, Replicate, Section, Variant
from cnnlab.result import rises

Label = tuple[str, ...]
Scores = dict[tuple[Label, Replicate], float]  # by what else a run is, and its seed and fold

TOO_FEW = "not enough seeds to tell"


@dataclass(frozen=True)
class Row:
    """A variant, or all variants with a certain word or value."""

    label: Label
    score: Estimate
    difference: Estimate | None  # to the baseline; None for itself and where no pair is
    verdict: str  # baseline, better, worse, TOO_FEW or "no pairs"


@dataclass(frozen=True)
class Comparison:
    """Rows in order of their means, the best first."""

    key: str | None  # that it goes by; None: whole variants
    rows: list[Row]

    @property
    def baseline(self) -> Row:
        return next(row for row in self.rows if row.verdict == "baseline")

    @property
    def tests(self) -> int:
        """The differences that Holm's correction is over."""
        return sum(row.difference is not None and row.difference.p_value is not None for row in self.rows)


def by_variant(section: Section, metric: str, wishes: Mapping[str, str]) -> Comparison | None:
    """Each variant with the baseline; None where nothing is scored."""
    scores = {variant.label: _scores([variant], metric, []) for variant in section.variants}
    baseline = section.baseline(metric, wishes)
    return _compare(None, scores, baseline.label, rises(metric)) if baseline else None


def by_key(section: Section, key: str, metric: str, wishes: Mapping[str, str]) -> Comparison | None:
    """Each word of a group, or value of a key, with the baseline's; None where there is none to compare.

    Runs pair whose seed and all else that varies are equal. A group's knobs belong to its words: runs that
    differ in them are averaged. Settings in which the key does not vary are left out.
    """
    levels: dict[str | None, list[Variant]] = {}
    for variant in section.variants:
        levels.setdefault(variant.traits.get(key), []).append(variant)
    others = [other for other in section.keys if other != key and not other.startswith(f"{key}.")]
    scores = {level: _scores(variants, metric, others) for level, variants in levels.items()}
    spread = Counter(context for cells in scores.values() for context in {context for context, _ in cells})
    # A default value is told by the overrides of some runs, perhaps.
    told = {
        level: next((value for v in variants if (value := v.value(key)) != DEFAULT), DEFAULT)
        for level, variants in levels.items()
    }
    varying: dict[Label, Scores] = {
        (told[level],): {cell: score for cell, score in cells.items() if spread[cell[0]] > 1}
        for level, cells in scores.items()
    }
    baseline = section.baseline(metric, wishes)
    return _compare(key, varying, (told[baseline.traits.get(key)],), rises(metric)) if baseline else None


def _scores(variants: list[Variant], metric: str, others: list[str]) -> Scores:
    gathered: dict[tuple[Label, Replicate], list[float]] = {}
    for variant in variants:
        context = tuple(variant.traits.get(other, "") for other in others)
        for replicate, score in variant.scores(metric).items():
            gathered.setdefault((context, replicate), []).append(score)
    return {cell: fmean(scores) for cell, scores in gathered.items()}


def _compare(
    key: str | None, scores: Mapping[Label, Scores], baseline: Label, more_is_better: bool
) -> Comparison | None:
    """The rows; a baseline without scores gives way to the first that has some."""
    scored = {label: cells for label, cells in scores.items() if cells}
    if not scored or (key is not None and len(scored) < 2):
        return None
    baseline = baseline if baseline in scored else next(iter(scored))
    differences = {
        label: _difference(cells, scored[baseline]) for label, cells in scored.items() if label != baseline
    }
    paired = {label: difference for label, difference in differences.items() if difference is not None}
    corrected = dict(zip(paired, holm(list(paired.values())), strict=True))
    sign = 1 if more_is_better else -1
    rows = [
        Row(
            label,
            _over_replicates(cells),
            corrected.get(label),
            "baseline" if label == baseline else verdict(corrected.get(label), sign),
        )
        for label, cells in scored.items()
    ]
    return Comparison(key, sorted(rows, key=lambda row: -sign * row.score.mean))


def verdict(difference: Estimate | None, sign: int = 1) -> str:
    """What a difference to the baseline says; sign -1 where less is better.

    >>> verdict(Estimate(mean=1.0, deviation=1.0, n=9)), verdict(Estimate(mean=1.0, deviation=1.0, n=3))
    ('better', 'not enough seeds to tell')
    """
    if difference is None:
        return "no pairs"
    if difference.interval is None:
        return TOO_FEW
    low, high = difference.interval
    if low <= 0 <= high:
        return TOO_FEW
    return "better" if sign * difference.mean > 0 else "worse"


def _difference(cells: Scores, baseline: Scores) -> Estimate | None:
    """Of the pairs with equal seed and fold (and setting), a mean each: these are what is drawn at random."""
    pairs = {cell: score - baseline[cell] for cell, score in cells.items() if cell in baseline}
    return _over_replicates(pairs, scale=max(map(abs, baseline.values()))) if pairs else None


def _over_replicates(cells: Scores, scale: float = 0.0) -> Estimate:
    """Of several seeds each counts once, with the mean of its folds; of one seed its folds, which overlap.

    >>> folds = {(("a",), (0, fold)): float(fold) for fold in range(3)}
    >>> told = _over_replicates(folds)
    >>> told.n, told.overlap
    (3, 0.5)
    >>> _over_replicates(folds | {(("a",), (1, fold)): 4.0 for fold in range(3)}).n
    2
    """
    by_seed, by_fold = defaultdict[int, list[float]](list), defaultdict[int, list[float]](list)
    for (_, (seed, fold)), value in cells.items():
        by_seed[seed].append(value)
        by_fold[fold].append(value)
    groups = by_seed if len(by_seed) > 1 else by_fold
    overlap = 1 / (len(groups) - 1) if groups is by_fold and len(groups) > 1 else 0.0
    return estimate([fmean(values) for values in groups.values()], scale, overlap)
