"""Prometheus's own tool, which judges pages of metrics and rules. Debian has it in the package `prometheus`."""

from __future__ import annotations

import os
import shutil
import subprocess

from tests.support import servers


def promtool(*words: object, page: str | None = None) -> str:
    """Runs `promtool WORDS`, and returns what it said; it must find nothing."""
    status, said = judged(*words, page=page)
    assert status == 0, said
    return said


def judged(*words: object, page: str | None = None) -> tuple[int, str]:
    """Runs `promtool WORDS`: its exit code, and what it said. Without it the test is skipped."""
    path = shutil.which("promtool")
    if path is None:
        servers.missing("promtool (of Prometheus)", in_ci=False)
    command = [path, *(str(word) for word in words)]
    hasty = os.environ | {"GOGC": "off"}  # it ends before its garbage matters
    done = subprocess.run(command, input=page, capture_output=True, text=True, check=False, timeout=300, env=hasty)
    return done.returncode, f"{done.stdout}{done.stderr}"
