"""What this machine has that runs can share: cores and GPUs."""

import os
from pathlib import Path


def gpus() -> list[str]:
    """The accelerators that torch sees, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (visible.split(",") if visible else [str(i) for i in range(count)])[:count]


def cores() -> int:
    """Physical cores that affinity and the cgroup's quota leave to this process, counted without torch."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    physical = len({_text(siblings.format(cpu)) or cpu for cpu in allowed})
    quota, _, period = _text("/sys/fs/cgroup/cpu.max").partition(" ")
    return max(1, min(physical, int(quota) // int(period) if quota.isdigit() else physical))


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
