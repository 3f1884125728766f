"""What every benchmark's report says at the top: command, commit, hardware."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

import torch


def hardware(device: str = "cpu") -> str:
    """Return CPU model and cores, and the GPU's name where one is measured."""
    try:
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:  # not Linux
        match = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu = f"{match.group(1).strip() if match else platform.processor() or platform.machine()}, {cores} cores"
    return f"{torch.cuda.get_device_name(device)}; {cpu}" if device.startswith("cuda") else cpu


def commit() -> str:
    """Return the commit of the source tree, "unknown" outside git."""
    try:
        out = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return out.stdout.strip()
