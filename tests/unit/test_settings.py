"""Settings: one file, strict, complete; what is wrong is said with key, line and rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from traceback import format_exception

import pytest
import yaml
from pydantic import SecretStr, ValidationError

from bandit.core.acting import ActingRules
from bandit.core.errors import InvalidInput
from bandit.core.model import Profile, Strategy
from config.alerts import Alerts
from config.bot import CrossSectional, ModelRotation, PerformanceGuard, Reconciliation, Risk
from config.settings import (
    InvalidSettings,
    LoadedSettings,
    Settings,
    Source,
    describe,
    load_settings,
    read_environment,
)
from liveops.wiring import acting_rules_of

DOCUMENT = Path(__file__).parents[1] / "data" / "config_document.yaml"
SEED = Path(__file__).resolve().parents[3] / "shared" / "seeds" / "002_51e0a3882741ff44.txt"
KEYS = {"BYBIT_API_KEY": "key-of-bybit", "BYBIT_API_SECRET": "secret-of-bybit"}


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str, *, environ: Mapping[str, str] | None = None) -> LoadedSettings:
    path = Path("settings.yaml")
    path.write_text(text)
    return load_settings(path=path, environ=environ or {}, dotenv=None)


def problems(text: str, *, environ: Mapping[str, str] | None = None) -> list[InvalidInput]:
    with pytest.raises(InvalidSettings) as caught:
        load(text, environ=environ)
    return list(caught.value.problems)


def problem(text: str, *, environ: Mapping[str, str] | None = None) -> str:
    found = problems(text, environ=environ)
    assert len(found) == 1, found
    return str(found[0])


def test_nothing_given_is_the_defaults() -> None:
    loaded = load_settings(path=None, environ={}, dotenv=None)
    settings = loaded.settings
    assert settings == Settings()
    assert loaded.warnings == ()
    assert set(loaded.sources.values()) == {Source.DEFAULT}
    assert settings.home == Path("var")
    assert settings.api_key is None
    assert settings.database.url is None
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8800)
    defaults = settings.experiment_defaults
    assert (defaults.profile, defaults.strategy) == (Profile.GUARDED, Strategy.RAMP)
    assert (defaults.currency, defaults.decision_seconds_valid) == ("USD", 2.0)
    assert settings.risk.base_position_size == 0.01
    assert settings.checklist.pf_band == (2.1, 2.8)
    assert settings.checklist.drawdown_band_percent == (0.0, 3.0)


def check_document(path: Path) -> None:
    loaded = load_settings(path=path, environ=KEYS, dotenv=None)
    settings = loaded.settings
    assert settings.exchange.api_key == SecretStr("key-of-bybit")
    assert settings.exchange.api_secret == SecretStr("secret-of-bybit")
    assert settings.trading.symbols == ("BTCUSDT", "ETHUSDT")
    assert settings.model.version == "2.1"
    assert settings.risk.max_drawdown == 0.10
    assert settings.regime_filter.adx_threshold == 25
    assert settings.portfolio.cross_sectional.max_symbol_risk_pct == 0.10
    assert settings.operations.model_rotation.enabled is True
    assert settings.operations.alerts.enabled is True
    assert settings.operations.alerts.discord_webhook_url is None
    key = "operations.alerts.discord_webhook_url"
    assert loaded.warnings == (f"{key}: DISCORD_WEBHOOK_URL is not set and taken as empty",)
    assert loaded.sources["risk.max_drawdown"] is Source.FILE
    assert loaded.sources["operations.max_api_errors"] is Source.DEFAULT


def test_the_whole_file_of_the_document_loads_unchanged() -> None:
    check_document(DOCUMENT)


def test_the_file_as_printed_in_the_document_is_the_tested_one(tmp_path: Path) -> None:
    if not SEED.exists():
        pytest.skip("the source documents are not beside this checkout")
    printed = re.findall(r"```yaml\n(.*?)```", SEED.read_text(encoding="utf-8"), re.DOTALL)[0]
    assert printed == DOCUMENT.read_text(encoding="utf-8")
    path = tmp_path / "config.yaml"
    path.write_text(printed, encoding="utf-8")
    check_document(path)


def test_the_operations_section_of_the_other_document_loads() -> None:
    loaded = load(
        "operations:\n"
        "  max_candle_gap_minutes: 15\n"
        "  model_rotation: {require_outperformance: false}\n"
        '  alerts: {discord_webhook_url: "", email_smtp_server: "", email_recipients: []}\n'
    )
    assert loaded.settings.operations.model_rotation.require_outperformance is False
    assert loaded.settings.operations.alerts.email_smtp_server is None
    assert loaded.warnings == ()


def test_what_a_command_was_told_wins_over_the_acting_that_is_set() -> None:
    text = (
        "model: {confidence_threshold: 0.8}\n"
        "regime_filter: {adx_threshold: 20, volatility_threshold: 3, allow_ranging: true}\n"
    )
    settings = load(text).settings
    rules = ActingRules(confidence_min=0.8, adx_min=20.0, volatility_max=3.0, allow_ranging=True)
    assert acting_rules_of(settings) == rules
    assert acting_rules_of(settings, allow_ranging=False) == replace(rules, allow_ranging=False)
    # 0 was told, and is not nothing.
    assert acting_rules_of(settings, confidence_min=0.0) == replace(rules, confidence_min=0.0)


def test_ranging_markets_are_not_spoken_of_where_no_regime_is_filtered() -> None:
    settings = load("regime_filter: {enabled: false}\n").settings
    assert acting_rules_of(settings) == ActingRules(filters_regime=False)
    for allowed in (True, False):
        with pytest.raises(InvalidInput, match=r"^allow_ranging: must be left out where"):
            acting_rules_of(settings, allow_ranging=allowed)


def test_every_section_of_the_document_waits_for_its_use_but_those_in_force() -> None:
    loaded = load_settings(path=DOCUMENT, environ=KEYS, dotenv=None)
    sections = set(yaml.safe_load(DOCUMENT.read_text(encoding="utf-8")))
    in_force = {row.key for row in describe(loaded) if row.in_force}
    assert {key for key in in_force if key.split(".")[0] in sections} == {
        "trading.symbols",
        *(f"portfolio.cross_sectional.{name}" for name in CrossSectional.model_fields),
        "model.confidence_threshold",
        "model.use_ensemble",
        "model.ensemble_xgb_weight",
        *(f"risk.{name}" for name in Risk.model_fields),
        "regime_filter.enabled",
        "regime_filter.adx_threshold",
        "regime_filter.volatility_threshold",
        "regime_filter.allow_ranging",
        "operations.health_check_interval_seconds",
        "operations.status_file_path",
        "operations.max_candle_gap_minutes",
        "operations.max_api_errors",
        "operations.api_error_window_minutes",
        "operations.max_no_trade_hours",
        *(f"operations.reconciliation.{name}" for name in Reconciliation.model_fields),
        "operations.monitor_throttle_intervals",
        "operations.monitor_halt_intervals",
        *(f"operations.model_rotation.{name}" for name in ModelRotation.model_fields),
        *(f"performance_guard.{name}" for name in PerformanceGuard.model_fields),
        *(f"operations.alerts.{name}" for name in Alerts.model_fields),
    }
    assert set(loaded.not_in_force) == set(loaded.sources) - in_force
    assert "model.version" in loaded.not_in_force


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("risk: {max_drawdwn: 0.1}", "risk.max_drawdwn", "max_drawdown"),
        ("rsk: {}", "rsk", "risk"),
        ("operations: {alerts: {on: 1}}", "operations.alerts.on", "email_login"),
        ("max_daily_loss: 0.01", "max_daily_loss", "max_daily_loss under risk"),
        ("model_rotation: {}", "model_rotation", "model_rotation under operations"),
        ("risk.max_daily_loss: 0", "risk.max_daily_loss", "max_daily_loss under risk"),
        ("trading: {ramp: {}}", "trading.ramp", "ramp at the top level"),
    ],
)
def test_unknown_key_is_an_error_with_the_nearest_one(text: str, key: str, nearest: str) -> None:
    (found,) = problems(text)
    assert found.field == key
    assert f"(settings.yaml line 1); did you mean {nearest}?" in found.rule


def test_unknown_key_lists_the_keys_of_its_section() -> None:
    text = problem("\nserver:\n  prot: 80\n")
    assert text == (
        "server.prot: is no key of server (settings.yaml line 3); did you mean port? "
        "server may have host, port, admin_host, admin_port, health_host, health_port, found prot"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("server: {port: 0}", "server.port: must be greater than or equal to 1 "),
        ("server: {port: 65536}", "server.port: must be less than or equal to 65535 "),
        ("server: {port: true}", "server.port: must be a number "),
        ("server: {port: 8800.5}", "server.port: must be a valid integer"),
        ("server: {port: }", "server.port: must be a valid integer"),
        ("server: 8800", "server: must be a section of keys "),
        ("risk: {max_daily_loss: 0}", "risk.max_daily_loss: must be greater than 0 "),
        ("risk: {max_daily_loss: 1.01}", "risk.max_daily_loss: must be less than or equal to 1 "),
        ("risk: {max_drawdown: 0.1501}", "risk.max_drawdown: must be less than or equal to 0.15 "),
        ("risk: {max_leverage: .nan}", "risk.max_leverage: must be a finite number "),
        ("risk: {max_leverage: .inf}", "risk.max_leverage: must be a finite number "),
        ("trading: {symbols: []}", "trading.symbols: must have at least 1 item"),
        ("trading: {symbols: [A, B, A]}", "trading.symbols: must name each one once "),
        ("trading: {symbols: [A, 'B C']}", "trading.symbols.1: must match pattern"),
        ("trading: {timeframe: 1 h}", "trading.timeframe: must match pattern"),
        ("trading: {timeframe: 0h}", "trading.timeframe: must match pattern"),
        ("model: {version: 2.1}", "model.version: must be a valid string; write it in quotes "),
        ("model: {version: 2025-01-01}", "model.version: must be a valid string; write it in "),
        ("database: {url: mysql://h/d}", "database.url: must match pattern"),
        ("experiment_defaults: {profile: brave}", "experiment_defaults.profile: must be 'seed_ex"),
        ("experiment_defaults: {currency: usd}", "experiment_defaults.currency: must match"),
        ("logging: {level: LOUD}", "logging.level: must be 'DEBUG', 'INFO'"),
        ("checklist: {pf_band: [2.8, 2.1]}", "checklist.pf_band: must give the lower end first "),
        ("checklist: {pf_throttle: 2.2}", "checklist.pf_band: must not start under pf_throttle"),
        (
            "checklist: {drawdown_halt_percent: 2.5}",
            "checklist.drawdown_band_percent: must not end above drawdown_halt_percent = 2.5",
        ),
        ("checklist: {kl_refresh: 0.2}", "checklist.kl_band: must not end above kl_refresh = 0.2"),
        ("checklist: {gpu_band: [2, 61]}", "checklist.gpu_band: must not end above gpu_restart"),
        ("checklist: {pf_window: 151}", "checklist: must keep pf_window <= long_window "),
        ("limits: {start: 0.3}", "limits: must keep arm_minimum <= start <= unproven_cap "),
        ("limits: {champion_floor: 0.05}", "limits: must keep champion_floor_proven <= champion_f"),
        ("risk: {base_position_size: 0.06}", "risk: must keep base_position_size <= max_position"),
        (
            "maintenance: {optuna_seconds_max: 9000}",
            "maintenance: must have limits of 21600 seconds in all at most: the job ends then "
            "(settings.yaml line 1), found 25080 in all",
        ),
        (
            "operations: {monitor_halt_intervals: 2}",
            "operations: must keep monitor_throttle_intervals <= monitor_halt_intervals",
        ),
        (
            "performance_guard: {win_rate_threshold_reduced: 0.2}",
            "performance_guard: must keep win_rate_threshold_paused <= win_rate_threshold_reduced",
        ),
    ],
)
def test_wrong_value_is_refused_by_its_rule(text: str, expected: str) -> None:
    assert problem(text).startswith(expected)


def test_the_deepest_lawful_drawdown_is_the_hard_limit() -> None:
    assert load("risk: {max_drawdown: 0.15}").settings.risk.max_drawdown == 0.15


def test_keys_out_of_order_show_the_values_that_clash() -> None:
    assert problem("limits:\n  start: 0.3").endswith(
        "unproven_cap (settings.yaml line 1), found 0.02, 0.3, 0.25"
    )


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(InvalidSettings) as caught:
        load("server: {port: 0}\nhome: [a]\nriskk: {}\n")
    assert [found.field for found in caught.value.problems] == ["home", "server.port", "riskk"]
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 problems in the settings"
    assert lines[2] == (
        "  server.port: must be greater than or equal to 1 (settings.yaml line 1), found 0"
    )
    assert caught.value.code == "invalid_settings"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "risk:\nserver:\n  # port: 1\n"])
def test_empty_file_and_empty_sections_keep_the_defaults(text: str) -> None:
    assert load(text).settings == Settings()


def test_a_file_that_is_not_there_is_said_so() -> None:
    with pytest.raises(InvalidSettings, match=r"none\.yaml: must be a readable file, found No su"):
        load_settings(path=Path("none.yaml"), environ={}, dotenv=None)


def test_variables_fill_texts_whole_or_in_part_and_take_the_type_of_the_key() -> None:
    loaded = load(
        "home: /srv/${NAME}/state-$${NAME}\n"
        "server: {port: '${PORT}'}\n"
        "exchange: {testnet: '${TEST}'}\n"
        "trading: {symbols: ['${BASE}USDT']}\n",
        environ={"NAME": "bot", "PORT": "9000", "TEST": "true", "BASE": "SOL"},
    )
    assert loaded.settings.home == Path("/srv/bot/state-${NAME}")
    assert loaded.settings.server.port == 9000
    assert loaded.settings.exchange.testnet is True
    assert loaded.settings.trading.symbols == ("SOLUSDT",)
    assert loaded.warnings == ()


def test_a_variable_is_filled_in_once() -> None:
    assert load("home: ${A}", environ={"A": "${B}", "B": "x"}).settings.home == Path("${B}")


def test_an_unset_variable_is_an_error_where_a_value_is_needed() -> None:
    assert problem("server:\n  port: ${PORT}") == (
        "server.port: must be a valid integer (settings.yaml line 2), found nothing, as PORT is "
        "not set"
    )


def test_a_variable_set_to_nothing_is_empty_without_a_warning() -> None:
    loaded = load("exchange: {api_key: '${KEY}'}", environ={"KEY": ""})
    assert loaded.settings.exchange.api_key is None
    assert loaded.warnings == ()


def test_an_error_shows_the_variable_and_not_what_it_stands_for() -> None:
    text = problem("trading: {timeframe: '${TF}'}", environ={"TF": "hunter2"})
    assert text.endswith("found ${TF}")
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "text",
    [
        "exchange: {api_secret: 271828}",
        "exchange: {api_secret: [271828]}",
        "exchange: {api_secert: 271828}",
        "exchange: 271828",
        "exchange: [271828]",
        "database: {url: 'mysql://bot:271828@host/db'}",
        "api_key: 0x271828" + "0" * 200,
        "api_key: a: 271828",
    ],
)
def test_an_error_never_shows_a_secret(text: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        load(text)
    assert "271828" not in "".join(format_exception(caught.value))


def test_the_environment_wins_over_the_file() -> None:
    loaded = load(
        "home: a\nserver: {port: 1}\napi_key: from-file\ndatabase: {url: '${UNSET}'}\n",
        environ={
            "LIVEOPS_HOME": "b",
            "LIVEOPS_PORT": "9001",
            "LIVEOPS_API_KEY": "from-environment",
            "LIVEOPS_DATABASE_URL": "postgresql://bot:pw@host/ledger",
        },
    )
    settings = loaded.settings
    assert settings.home == Path("b")
    assert settings.server.port == 9001
    assert settings.api_key == SecretStr("from-environment")
    assert settings.database.url == "postgresql://bot:pw@host/ledger"
    from_environment = {k for k, v in loaded.sources.items() if v is Source.ENVIRONMENT}
    assert from_environment == {"home", "server.port", "api_key", "database.url"}
    assert loaded.warnings == ()


def test_an_empty_variable_does_not_take_a_key_away() -> None:
    loaded = load("api_key: from-file", environ={"LIVEOPS_API_KEY": ""})
    assert loaded.settings.api_key == SecretStr("from-file")


def test_the_environment_fills_an_empty_section_but_hides_no_broken_one() -> None:
    environ = {"LIVEOPS_PORT": "9001"}
    assert load("server:\n", environ=environ).settings.server.port == 9001
    assert problem("server: 1", environ=environ).startswith("server: must be a section of keys")


def test_a_wrong_variable_is_named() -> None:
    text = problem("server: {port: 1}", environ={"LIVEOPS_PORT": "many"})
    assert text.startswith("server.port: must be a valid integer")
    assert text.endswith("(LIVEOPS_PORT), found 'many'")


def test_the_file_is_the_given_one_then_the_variables_then_the_usual_one(tmp_path: Path) -> None:
    for name in ("given", "named"):
        (tmp_path / f"{name}.yaml").write_text(f"home: {name}")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("home: usual")
    environ = {"LIVEOPS_CONFIG": "named.yaml"}
    given = load_settings(path=Path("given.yaml"), environ=environ, dotenv=None)
    named = load_settings(path=None, environ=environ, dotenv=None)
    usual = load_settings(path=None, environ={}, dotenv=None)
    assert [str(one.settings.home) for one in (given, named, usual)] == ["given", "named", "usual"]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().server.port = 1


def test_secrets_are_masked_where_settings_are_shown() -> None:
    loaded = load(
        "api_key: hunter2\n"
        "exchange: {api_key: hunter2}\n"
        "operations: {alerts: {discord_webhook_url: 'https://discord.example/hunter2'}}\n"
        "database: {url: 'postgresql://bot:hunter2@host:5432/ledger?password=hunter2'}\n"
    )
    rows = {row.key: row.value for row in describe(loaded)}
    assert rows["api_key"] == rows["exchange.api_key"] == "***"
    assert rows["operations.alerts.discord_webhook_url"] == "***"
    assert rows["database.url"] == "postgresql://bot:***@host:5432/ledger?***"
    assert rows["exchange.api_secret"] is None
    assert "hunter2" not in repr(loaded) + str(rows)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://bot:p@hunter2@host/db",
        "postgresql://bot:p/hunter2@host/db",
        "postgresql://bot:p?hunter2@host/db",
        "postgresql://host/db?password=hunter2",
        "postgresql://host/db?password=hunter2@x",
        "postgresql:///db?host=/run&password=hunter2",
    ],
)
def test_no_part_of_a_password_in_a_database_url_is_shown(url: str) -> None:
    row = next(row for row in describe(load(f"database: {{url: '{url}'}}")) if "url" in row.key)
    assert "hunter2" not in str(row.value)
    assert str(row.value).startswith("postgresql://")


def test_rows_are_plain_values_with_unit_meaning_and_source() -> None:
    rows = {row.key: row for row in describe(load("ramp: {min_trades: 40}"))}
    row = rows["ramp.min_trades"]
    assert (row.value, row.unit, row.source, row.in_force) == (40, "trades", Source.FILE, True)
    assert row.meaning == "An arm with fewer trades is left alone."
    assert rows["trading.symbols"].value == ["BTCUSDT", "ETHUSDT"]
    assert rows["operations.status_file_path"].value == "logs/bot_status.json"
    assert type(rows["experiment_defaults.profile"].value) is str


def test_the_process_environment_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEOPS_HOME", "elsewhere")
    assert read_environment()["LIVEOPS_HOME"] == "elsewhere"
