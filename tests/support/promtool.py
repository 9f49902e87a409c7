"""Prometheus's own tool, which judges pages of metrics and rules. Debian has it in the package `prometheus`."""

from __future__ import annotations

import shutil
import subprocess

from tests.support import servers


def promtool(*words: object, page: str | None = None) -> str:
    """Runs `promtool WORDS`; it must find nothing. Without it the test is skipped, or fails in CI."""
    path = shutil.which("promtool")
    if path is None:
        servers.missing("promtool (of Prometheus)")
    command = [path, *(str(word) for word in words)]
    done = subprocess.run(command, input=page, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout + done.stderr
