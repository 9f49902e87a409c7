"""Twenty seconds of soak, and the rule for its curves; `make soak` is the long form."""

from __future__ import annotations

import pytest

from tests.chaos import soak
from tests.support.growth import Curve, Samples


def test_a_shop_under_faults_for_twenty_seconds() -> None:
    report = soak.play(soak.Options(minutes=1 / 3, rate=15))
    for name, value in report.figures():
        print(f"{name:<38}{value!s:>12}")
    assert report.wrong == []
    assert {kind for _, kind in report.faults} == set(soak.EVERY)
    assert report.retries  # the faults were felt
    assert report.consistency.acknowledged > 100
    assert len(report.samples.seconds) >= 8  # one a second, and more than a second each on a busy machine
    assert all(any(curve.values) or curve.unit in {"s", "orders"} for curve in report.samples.curves.values())


def curve(*values: float | None) -> Curve:
    return Curve("files", "files", list(values))


@pytest.mark.parametrize(
    ("values", "flat"),
    [
        ([9] * 40, True),
        ([*range(0, 20, 2), *[20] * 30], True),  # pools fill in the first quarter
        ([20] * 20 + [30] * 20, False),
        (list(range(40)), False),  # a leak
        ([40 - number for number in range(40)], True),
        ([20, None] * 20, True),  # a server was down now and then
        ([20.0] * 20 + [20.9] * 20, True),  # noise
    ],
)
def test_what_is_flat(values: list[float | None], flat: bool) -> None:
    assert curve(*values).is_flat is flat


def test_what_is_not_flat_is_named(tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="in the bench extra")
    samples = Samples()
    for second in range(40):
        samples.add(second, {("files of worker", "files"): second, ("memory of worker", "MiB"): 60.0})
    assert samples.not_flat == ["files of worker rose by 20.0 files"]
    assert "| files of worker | files | 14.5 | 34.5 | 3.0 | NO |" in samples.table()
    samples.plot(tmp_path / "soak.svg", [(10.0, "worker killed")])
    assert "</svg>" in (tmp_path / "soak.svg").read_text()


def test_help_and_bad_times(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code in ((["--help"], 0), (["--minutes", "0"], 2)):
        with pytest.raises(SystemExit) as stopped:
            soak.main(arguments)
        assert stopped.value.code == code
    assert "--minutes" in capsys.readouterr().out
