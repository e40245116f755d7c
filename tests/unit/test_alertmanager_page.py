"""What docs/alertmanager.md lets an operator copy is what Prometheus and Alertmanager take."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bandit.core.alert_actions import AlertResult

PAGE = Path(__file__).resolve().parents[2] / "docs" / "alertmanager.md"


def test_every_result_is_explained() -> None:
    explained = set(re.findall(r"^\| [^|]+ \| `(\w+)` \|", PAGE.read_text("utf-8"), re.MULTILINE))
    assert explained == {result.value for result in AlertResult} - {"truncated"}


@pytest.mark.real_part
@pytest.mark.parametrize(
    ("name", "command", "package"),
    [
        ("rules.yml", ["promtool", "check", "rules"], "prometheus"),
        ("prometheus.yml", ["promtool", "check", "config"], "prometheus"),
        ("alertmanager.yml", ["amtool", "check-config"], "prometheus-alertmanager"),
    ],
)
def test_the_files_of_the_page_are_lawful(
    tmp_path: Path, name: str, command: list[str], package: str
) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not on PATH (Debian package {package})")
    blocks = re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    for key in ("liveops-key", "liveops-key-webhook"):
        (tmp_path / key).write_text("key")
    for file, content in blocks:
        (tmp_path / file).write_text(content.replace("/etc/prometheus", str(tmp_path)))
    checked = subprocess.run(
        [*command, str(tmp_path / name)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "SUCCESS" in checked.stdout
