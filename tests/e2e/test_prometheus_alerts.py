"""`prometheus_alerts`, which is also `liveops alerts`: what it writes, says and exits with."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest
from commands import REPOSITORY, script

FILES = ("prometheus_alerts.yml", "alertmanager.yml")
DASHBOARDS = (
    "grafana_dashboard.json",
    *(f"grafana/{name}.json" for name in ("system", "trading", "model", "pipeline")),
)


def alerts(*arguments: str, **more: str) -> tuple[int, str, str]:
    # The routes lead to the admin listener, which tests otherwise do without.
    more = {"LIVEOPS_ADMIN_PORT": "8801"} | more
    answer = script("liveops", "alerts", *arguments, **more)
    return answer.returncode, answer.stdout, answer.stderr


def test_the_documents_name_of_it_is_installed() -> None:
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        scripts = tomllib.load(file)["project"]["scripts"]
    assert scripts["prometheus_alerts"] == "liveops.cli:prometheus_alerts"


def test_it_writes_what_is_committed_and_then_finds_nothing_wrong(tmp_path: Path) -> None:
    code, said, _ = alerts("--action", "generate", "--out", str(tmp_path))
    assert (code, said) == (
        0,
        "".join(f"written: {tmp_path / name}\n" for name in (*FILES, *DASHBOARDS)),
    )
    for folder, names in (("alerts", FILES), ("config", DASHBOARDS)):
        for name in names:
            assert (tmp_path / name).read_text() == (REPOSITORY / folder / name).read_text()
    code, said, _ = alerts("--action", "check", "--out", str(tmp_path))
    assert (code, said) == (0, "52 alerts, nothing wrong\n")


def test_a_desks_own_thresholds_are_written_and_asked_for(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("risk: {max_daily_loss: 0.05}\nalert_rules: {balance_low: 250}\n")
    own = ("--out", str(tmp_path), "--config", str(config))
    assert alerts("--action", "generate", *own)[0] == 0
    written = (tmp_path / FILES[0]).read_text()
    assert "max_max2m > 0.05\n" in written
    assert "min_min2m < 250\n" in written
    for name, limit in (("grafana_dashboard.json", 250.0), ("grafana/trading.json", 0.05)):
        assert f'"value": {limit}\n' in (tmp_path / name).read_text()
    assert alerts("--action", "check", *own)[0] == 0
    code, said, _ = alerts("--action", "check", "--out", str(tmp_path))
    assert code == 1
    assert f"{tmp_path / FILES[0]}: is not what these settings give" in said


def test_without_promtool_a_check_says_so_and_a_test_cannot_be(tmp_path: Path) -> None:
    alerts("--action", "generate", "--out", str(tmp_path))
    code, said, error = alerts("--action", "check", "--out", str(tmp_path), PATH=str(tmp_path))
    assert (code, said) == (0, "52 alerts, nothing wrong\n")
    assert "not asked: amtool is not on PATH (Debian package prometheus-alertmanager)\n" in error
    code, said, error = alerts("--action", "test", PATH=str(tmp_path))
    missing = "program_missing: promtool is not on PATH (Debian package prometheus)\n"
    assert (code, said, error) == (1, "", missing)


def test_wrong_usage_exits_2(tmp_path: Path) -> None:
    assert alerts()[0] == 2
    assert alerts("--action", "delete")[0] == 2
    config = tmp_path / "config.yaml"
    config.write_text("alert_rules: {balance_lo: 250}\n")
    code, _, error = alerts("--action", "check", "--config", str(config))
    assert code == 2
    assert "balance_low" in error
    (tmp_path / "file").touch()
    code, _, error = alerts("--action", "generate", "--out", str(tmp_path / "file"))
    assert code == 1
    assert "was not made" in error


@pytest.mark.real_part
def test_it_runs_the_unit_tests_of_every_rule() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not on PATH (Debian package prometheus)")
    code, said, error = alerts("--action", "test")
    assert (code, error) == (0, "")
    assert said.startswith("52 alerts, ")
    assert said.endswith(" cases, none failed\n")
