"""The peak of a call is what it holds at once, above what was there before."""

from pathlib import Path

import pytest
import torch

from cnnlab.memory import _process_bytes, forget_peak, keep_freed_memory, peak_bytes
from tests import isolated

MB = 2**20
CPU = torch.device("cpu")


def hold(megabytes: int) -> torch.Tensor:
    return torch.ones(megabytes * MB // 4)


def test_the_peak_is_what_is_held_at_once():
    before = hold(64)

    def call() -> None:
        first, second = hold(40), hold(24)
        del first, second
        hold(36)

    for _ in range(2):  # what the first call freed is counted again by the second
        assert peak_bytes(call, CPU) == pytest.approx(64 * MB, rel=0.05)
    assert before.sum() == 16 * MB


def test_small_blocks_that_the_allocator_keeps_are_counted_again():
    def call() -> None:
        blocks = [torch.ones(2**13) for _ in range(512)]  # 32 kB each, 16 MB in all
        assert len(blocks) == 512

    for _ in range(3):
        assert peak_bytes(call, CPU) == pytest.approx(16 * MB, rel=0.1)


def test_freed_memory_stays_with_the_process():
    keep_freed_memory()
    forget_peak()
    before = _process_bytes("VmRSS")
    hold(200)
    assert _process_bytes("VmRSS") - before > 150 * MB


def kept_before_the_call() -> None:
    keep_freed_memory()
    hold(200)
    test_the_peak_is_what_is_held_at_once()


def test_kept_memory_is_not_counted():
    isolated.run(kept_before_the_call)  # whose heap holds nothing of other tests


def test_there_is_no_peak_where_none_can_be_measured(monkeypatch):
    assert peak_bytes(lambda: None, torch.device("meta")) is None

    def denied(path: Path, text: str) -> int:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(Path, "write_text", denied)
    assert peak_bytes(lambda: None, CPU) is None
