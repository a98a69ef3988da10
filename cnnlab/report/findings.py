"""What a report says, in whatever form: runs -> sections of variants -> comparisons."""

from collections.abc import Mapping
from dataclasses import dataclass

from cnnlab.allowed import RequestError, did_you_mean
from cnnlab.report.comparison import Comparison, by_key, by_variant
from cnnlab.report.facts import facts
from cnnlab.report.find import Found, Run
from cnnlab.report.variants import Section, Variant, sections, unfinished

SELECTING = ("val/accuracy", "val/loss")  # of the validation, the more telling first


@dataclass
class Findings:
    """Of the runs on one data set."""

    section: Section
    whole: Comparison | None  # of whole variants; None where no run has the metric
    by: list[Comparison]  # by each key that varies, where more than one does

    @property
    def ranked(self) -> list[Variant]:
        """The variants that have a score, the best first."""
        variants = {variant.label: variant for variant in self.section.variants}
        return [variants[row.label] for row in self.whole.rows] if self.whole else []


@dataclass
class Report:
    title: str
    metric: str
    findings: list[Findings]
    facts: dict[str, str]
    unfinished: list[tuple[str, Run]]
    broken: list[str]


def report(found: Found, metric: str, wishes: Mapping[str, str], title: str) -> Report:
    """All that is said of the runs found, selected by `metric`; `wishes` are the baseline's words and values.

    Raises:
        RequestError: the metric is not one to select by, or no run has it; no run is as the baseline.
    """
    check_metric(metric)
    known = {name for result, _ in found.runs if result.status == "done" for name in result.metrics}
    if known and metric not in known:
        near = did_you_mean(metric, known) or f"; there are {', '.join(sorted(filter(_selects, known)))}"
        raise RequestError(f"report: --metric {metric}: no run has it{near}")
    groups, repeated = sections(found.runs)
    _check_baseline([v for section in groups for v in section.variants if v.scores(metric)], wishes)
    findings = [
        Findings(
            section,
            by_variant(section, metric, wishes),
            [
                comparison
                for key in section.keys
                if len(section.keys) > 1 and (comparison := by_key(section, key, metric, wishes)) is not None
            ],
        )
        for section in groups
    ]
    return Report(title, metric, findings, facts(groups, repeated), unfinished(groups), found.broken)


def metric_of(found: Found) -> str:
    """What to select by where nobody says: the first of SELECTING that the runs have."""
    known = {metric for result, _ in found.runs for metric in result.metrics}
    return next((metric for metric in SELECTING if metric in known), SELECTING[0])


def check_metric(metric: str) -> None:
    if metric.startswith("test/"):
        raise RequestError(
            f"report: --metric {metric}: the test set is not for selecting, val/accuracy is; "
            "test metrics are shown beside it"
        )
    if metric.startswith("time/"):
        raise RequestError(f"report: --metric {metric}: only `cnnlab bench` ranks by time")


def _selects(metric: str) -> bool:
    return not metric.startswith(("test/", "time/"))


def _check_baseline(variants: list[Variant], wishes: Mapping[str, str]) -> None:
    """Only what has a score can be compared with; where nothing has, nothing is."""
    for key, value in wishes.items():
        if variants and not any(variant.is_asked({key: value}) for variant in variants):
            values = sorted({variant.value(key) for variant in variants})
            keys = {key for variant in variants for key in variant.traits}
            there_are = f"{key} is {' or '.join(values)}" if key in keys else f"no run tells {key}"
            raise RequestError(
                f"report: --baseline {key}={value}: no run that is done has it; "
                f"{there_are}{did_you_mean(value, values) if key in keys else did_you_mean(key, keys)}"
            )
    if variants and not any(variant.is_asked(wishes) for variant in variants):
        told = " ".join(f"{key}={value}" for key, value in wishes.items())
        raise RequestError(f"report: --baseline {told}: no run that is done has all of it")
