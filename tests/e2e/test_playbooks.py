"""Playbooks and runbooks: one for each alert, and every command does what its page says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import nightly_candles
import pytest
import scratch_stack
import typer
from api_service import application
from commands import REPOSITORY, environment, free_port
from postgres_server import PostgresServer
from scratch_stack import commands_of
from sqlalchemy import Engine
from typer.core import TyperGroup
from typer.exceptions import TyperException

from alerts.limits import AlertLimits, AlertPlaces
from alerts.playbooks import HEADINGS, INDEX, head, index, with_head
from alerts.rule import AlertRule, Severity
from alerts.rules import rules
from bandit.storage.engine import connect
from liveops import cli
from liveops.api.server import serving
from liveops.breakers import Breakers
from liveops.clock import SystemClock
from liveops.latch import Latch
from liveops.ledger_server import status_file
from liveops.status_file import StatusKeeper

DOCS = REPOSITORY / "docs"
PLAYBOOKS = sorted((DOCS / "playbooks").glob("*.md"))
RUNBOOKS = sorted((DOCS / "runbooks").glob("*.md"))
PAGES = {path.stem: path for path in (*PLAYBOOKS, *RUNBOOKS) if path.name != INDEX}
RULES = rules(AlertLimits(), AlertPlaces())
KEY = "lo_" + "k" * 43
ENTRIES = {
    "liveops": cli.app,
    "validate_data": cli.validate_app,
    "rollback_data": cli.rollback_app,
}
NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"


@pytest.fixture(scope="module")
def template(postgres_server: PostgresServer) -> Iterator[str]:
    """The name of a database with the stack, for each page to copy."""
    with postgres_server.database() as url:
        engine = connect(url)
        scratch_stack.build(engine)
        engine.dispose()  # a database that somebody uses cannot be copied
        name = engine.url.database
        assert name is not None
        yield name


class Operator:
    """Who types commands beside a running service; none of them takes longer than a minute."""

    def __init__(
        self,
        variables: dict[str, str],
        follow: Callable[[], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self._variables = variables
        self._follow = follow
        self._port = variables["LIVEOPS_PORT"]
        monkeypatch.chdir(variables["LIVEOPS_HOME"])
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    def types(self, line: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
        """Type a line; its exit code, and all that it said."""
        self._follow()
        line = line.replace("127.0.0.1:8801", f"127.0.0.1:{self._port}")
        entry = ENTRIES.get(line.partition(" ")[0])
        if entry is not None and "|" not in line:
            capfd.readouterr()
            code = cli.exit_code(entry, shlex.split(line, comments=True)[1:])
            return code, "".join(capfd.readouterr())
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            env=environment(None, **self._variables, PATH=_path(), no_proxy="127.0.0.1"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


def _path() -> str:
    programs = [str(Path(found).parent) for name in ("curl", "jq") if (found := shutil.which(name))]
    return ":".join([*programs, "/usr/bin", "/bin"])


@pytest.fixture
def page(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def operator(
    page: str,
    template: str,
    postgres_server: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Operator]:
    """An operator beside the stack in the situation of `page`."""
    with ExitStack() as stack:
        url = stack.enter_context(postgres_server.database(template=template))
        engine = connect(url)
        stack.callback(engine.dispose)
        scratch_stack.stage(engine, page)
        if page in nightly_candles.PAGES:
            nightly_candles.stage(engine, tmp_path, page)
        is_lost = page in scratch_stack.LOST
        if is_lost:
            scratch_stack.lose(engine, tmp_path)
        is_away = page in scratch_stack.AWAY
        variables = {
            "LIVEOPS_API_KEY": KEY,
            "LIVEOPS_DATABASE_URL": NOWHERE if is_away else url,
            "LIVEOPS_HOME": str(tmp_path),
            "LIVEOPS_PORT": str(free_port()),
            "LIVEOPS_ADMIN_PORT": "0",
        }
        serves = connect(NOWHERE) if is_away or is_lost else engine
        listens = not is_lost and page not in scratch_stack.DOWN
        follow = serve(stack, serves, variables, listens=listens)
        yield Operator(variables, follow, monkeypatch)


def serve(
    stack: ExitStack, engine: Engine, variables: dict[str, str], *, listens: bool
) -> Callable[[], None]:
    """Serve the ledger of `engine`; return what brings the status file in step with it.

    A service does so by itself, within five seconds, which nobody has to wait for here.
    """
    home = Path(variables["LIVEOPS_HOME"])
    breakers = Breakers(failures_max=1)
    breakers.of("notify.discord")
    app = application(
        engine, clock=SystemClock(), key=KEY, latch=Latch(home / "KILLED"), breakers=breakers
    )
    app = replace(app, settings=app.settings.model_copy(update={"home": home}))
    keeper = StatusKeeper(app, status_file(app.settings, demo=False))
    if not listens:
        keeper.look()  # what it said last
        return lambda: None
    port = int(variables["LIVEOPS_PORT"])
    stack.enter_context(serving(app, host="127.0.0.1", port=port))
    return keeper.look


@pytest.mark.real_part
@pytest.mark.parametrize("page", PAGES, indirect=True)
def test_every_command_does_what_its_page_says(
    page: str, operator: Operator, capfd: pytest.CaptureFixture[str]
) -> None:
    typed = commands_of(PAGES[page].read_text(encoding="utf-8"), "bash", "console")
    assert typed, "a page without a command helps nobody"
    told = ""
    for line, expected in typed:
        for program in ("curl", "jq"):
            if re.search(rf"\b{program}\b", line) and shutil.which(program) is None:
                pytest.skip(f"{program} is not on PATH (Debian package {program})")
        code, said = operator.types(line, capfd)
        assert (code, "Traceback" in said) == (expected, False), f"{line}\n{said}"
        told += said
        if "| jq" in line:
            assert said.strip() not in ("", "null"), f"{line}\nsays nothing"
        if "| {" in line:  # a field that is not there is null, and no error
            assert "null" not in said, f"{line}\n{said}"
    assert re.search(scratch_stack.SAYS.get(page, ""), told), told


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_only_shown_are_spelt_as_they_are(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("newest.csv.gz", "anchors-copy.jsonl", "FILE"):
        (tmp_path / name).touch()  # files that have to be there to be named
    text = PAGES[page].read_text(encoding="utf-8")
    for line, _ in commands_of(text, "text"):
        words = shlex.split(line, comments=True)
        if words and words[0] == "liveops":
            spelt(typer.main.get_command(cli.app), words[1:])
    for line in re.findall(r"`liveops ([^`]+)`", scratch_stack.BLOCK.sub("", text)):
        try:
            spelt(typer.main.get_command(cli.app), shlex.split(line))
        except TyperException as error:
            if type(error).__name__ not in ("MissingParameter", "NoArgsIsHelpError"):
                raise  # a sentence may name a command alone, but none that is not there


def spelt(command: Any, words: list[str]) -> None:
    """Let a command read its words, and run nothing."""
    if isinstance(command, TyperGroup):
        context = command.make_context("liveops", list(words))
        rest = [*context._protected_args, *context.args]  # some groups add to what is typed
        if rest:
            found = command.get_command(context, rest[0])
            assert found is not None, words
            spelt(found, rest[1:])
    else:
        command.make_context("liveops", words)


def test_a_wrong_spelling_is_found() -> None:
    with pytest.raises(Exception, match="--candle"):
        spelt(typer.main.get_command(cli.app), ["drift", "trend-v3", "--candle", "x"])


def test_every_alert_has_a_playbook_and_every_playbook_an_alert() -> None:
    assert {path.stem for path in PLAYBOOKS} == {rule.name for rule in RULES} | {"README"}
    assert sum(rule.severity is Severity.CRITICAL for rule in RULES) >= 10
    assert len([path for path in RUNBOOKS if path.stem != "incidents"]) == 7


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_playbook_has_the_limits_of_its_rule_and_four_parts(rule: AlertRule) -> None:
    text = (DOCS / "playbooks" / f"{rule.name}.md").read_text(encoding="utf-8")
    assert text.startswith(head(rule)), "python -m alerts.playbooks docs/playbooks"
    assert with_head(rule, text) == text
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    assert tuple(parts[1::2]) == HEADINGS
    assert all(part.strip() for part in parts[2::2])


@pytest.mark.parametrize("page", sorted({path.stem for path in RUNBOOKS} - {"incidents"}))
def test_a_runbook_has_the_four_parts_of_a_playbook(page: str) -> None:
    text = PAGES[page].read_text(encoding="utf-8")
    assert tuple(re.findall(r"^## (.+)$", text, flags=re.MULTILINE)) == HEADINGS


def test_another_limit_is_another_head() -> None:
    strict = rules(AlertLimits(profit_factor=1.9), AlertPlaces())
    changed = [a.name for a, b in zip(RULES, strict, strict=True) if head(a) != head(b)]
    assert changed == ["ChallengerProfitFactorLow"]


def test_the_index_is_fresh() -> None:
    assert (DOCS / "playbooks" / INDEX).read_text(encoding="utf-8") == index(RULES)


def test_no_link_leads_nowhere() -> None:
    dead = []
    for path in (*PLAYBOOKS, *RUNBOOKS, DOCS / "alerts.md"):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            if "://" not in target and not (path.parent / target).exists():
                dead.append(f"{path.name}: {target}")
    assert dead == []
