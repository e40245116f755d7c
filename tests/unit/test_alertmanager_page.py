"""What docs/alertmanager.md lets an operator copy is what Prometheus and Alertmanager take."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bandit.core.alert_actions import AlertResult

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "alertmanager.md"
RULES = ROOT / "alerts" / "prometheus_alerts.yml"


def test_every_result_is_explained() -> None:
    explained = set(re.findall(r"^\| [^|]+ \| `(\w+)` \|", PAGE.read_text("utf-8"), re.MULTILINE))
    assert explained == {result.value for result in AlertResult} - {"truncated"}


@pytest.mark.real_part
def test_prometheus_takes_the_file_of_the_page_with_our_rules(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not on PATH (Debian package prometheus)")
    [(file, content)] = re.findall(
        r"```yaml\n# (\S+)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL
    )
    (tmp_path / "liveops-key").write_text("key")
    shutil.copy(RULES, tmp_path)
    (tmp_path / file).write_text(content.replace("/etc/prometheus", str(tmp_path)))
    checked = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "SUCCESS" in checked.stdout
