"""The peak of a call is what it holds at once, above what was there before."""

from pathlib import Path

import pytest
import torch

from cnnlab.memory import _process_bytes, forget_peak, keep_freed_memory, peak_bytes
from tests import isolated  # processes whose heap holds nothing of other tests

MB = 2**20
CPU = torch.device("cpu")


def hold(megabytes: int) -> torch.Tensor:
    return torch.ones(megabytes * MB // 4)


def peaks_of_large_blocks() -> list[int | None]:
    before = hold(64)

    def call() -> None:
        first, second = hold(40), hold(24)
        del first, second
        hold(36)

    peaks = [peak_bytes(call, CPU) for _ in range(2)]  # what the first call freed is counted again
    assert before.sum() == 16 * MB
    return peaks


def peaks_of_small_blocks() -> list[int | None]:
    def call() -> None:
        blocks = [torch.ones(2**13) for _ in range(512)]  # 32 kB each, 16 MB in all
        assert len(blocks) == 512

    call()  # the first one loads code
    return [peak_bytes(call, CPU) for _ in range(3)]


def growth_by_a_freed_tensor() -> int:
    keep_freed_memory()
    forget_peak()
    before = _process_bytes("VmRSS")
    hold(200)
    return _process_bytes("VmRSS") - before


def test_the_peak_is_what_is_held_at_once():
    assert isolated.run(peaks_of_large_blocks) == pytest.approx([64 * MB] * 2, rel=0.05)


def test_small_blocks_that_the_allocator_keeps_are_counted_again():
    assert isolated.run(peaks_of_small_blocks) == pytest.approx([16 * MB] * 3, rel=0.15)


def test_freed_memory_stays_with_the_process():
    assert isolated.run(growth_by_a_freed_tensor) > 150 * MB


def test_there_is_no_peak_where_none_can_be_measured(monkeypatch):
    assert peak_bytes(lambda: None, torch.device("meta")) is None

    def denied(path: Path, text: str) -> int:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(Path, "write_text", denied)
    assert peak_bytes(lambda: None, CPU) is None
