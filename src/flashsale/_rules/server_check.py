"""Checks a Redis server's INFO before a sale: eviction, persistence, replicas, version. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from flashsale._rules.codes import number

OLDEST = (6, 2)


class Finding(NamedTuple):
    """Something about the server that can cost orders.

    Args:
        name: eviction, persistence, replicas, version or database.
        message: what is wrong, and what to do.
    """

    name: str
    message: str

    def __str__(self) -> str:
        return self.message


def judge(info: Mapping[str, str], *, replicas: int, oldest: tuple[int, int] = OLDEST) -> tuple[Finding, ...]:
    """Returns what is wrong with a server whose INFO is `info`.

    Args:
        info: names and values.
        replicas: how many the stock should have.
        oldest: version that the sale needs.
    """
    findings = []
    policy = info.get("maxmemory_policy", "unknown")
    if policy not in {"noeviction", "unknown"}:
        findings.append(Finding("eviction", f"maxmemory-policy is {policy}: stock may vanish; set noeviction"))
    if info.get("aof_enabled") == "0":
        findings.append(Finding("persistence", "no append-only file: a restart loses the sale; set appendonly yes"))
    connected = number(info.get("connected_slaves", "0").encode()) or 0
    if connected < replicas:
        findings.append(Finding("replicas", f"{connected} replicas are connected, {replicas} are wanted"))
    version = info.get("valkey_version") or info.get("redis_version", "")
    parts = tuple(part for text in version.split(".")[:2] if (part := number(text.encode())) is not None)
    if parts and parts < oldest:
        findings.append(Finding("version", f"the server is {version}; this sale needs {oldest[0]}.{oldest[1]}"))
    if not info:
        findings.append(Finding("version", "the server does not answer INFO: its settings are unknown"))
    return tuple(findings)
