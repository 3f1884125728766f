"""What every benchmark's report begins with."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch


def report_header(device: str) -> dict[str, Any]:
    """Return command, commit, hardware, threads and versions."""
    return {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit(),
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device.startswith("cuda") else None,
        "tf32": torch.backends.cuda.matmul.allow_tf32 if device.startswith("cuda") else None,
        "python": platform.python_version(),
    }


def write_report(report: dict[str, Any], path: Path | None) -> None:
    """Write a report as JSON, and the folder that it is in; None: nothing is asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n")


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
    """Return the commit of the source tree, "-dirty" appended if it is changed, "unknown" outside git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        out = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return out.stdout.strip()
