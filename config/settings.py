"""The settings of the service: loaded once, frozen, complete; the only reader of the environment.

Whatever runs the product calls `load_settings` at its start and hands on the values needed.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from pathlib import Path
from typing import Annotated

from dotenv.parser import parse_stream
from pydantic import AfterValidator, SecretStr, ValidationError
from pydantic_core import to_jsonable_python

from bandit.core.errors import BanditError, InvalidInput
from config.alerting import AlertRules
from config.bot import (
    Exchange,
    Model,
    Operations,
    PerformanceGuard,
    Portfolio,
    RegimeFilter,
    Risk,
    Trading,
)
from config.data import Data
from config.keys import KeyEntry, each_hash_once
from config.problems import MASK, Origin, located, problems_of
from config.rules import Allocator, Checklist, Evidence, Limits, Ramp
from config.secrets import SecretsVault
from config.section import Leaf, Section, leaves, setting
from config.service import (
    Ageing,
    Audit,
    Backups,
    Breakers,
    Database,
    ExperimentDefaults,
    KillSwitch,
    Logging,
    Scheduler,
    Server,
)
from config.snapshots import Snapshots
from config.strict_yaml import Document, parse_yaml, read_text
from config.tuning import Tuning
from config.upkeep import Maintenance, Purge

CONFIG_VARIABLE = "LIVEOPS_CONFIG"
CONFIG_FILE = Path("config/config.yaml")
DOTENV_NAME = ".env"


class Settings(Section):
    """Everything that can be set.

    >>> Settings().server.port
    8800
    """

    home: Path = setting(
        Path("var"),
        meaning="Directory of all state; a relative one lies in the checkout.",
        unit="path",
        environment="LIVEOPS_HOME",
    )
    api_key: SecretStr | None = setting(
        None,
        meaning="Key with every scope, named owner; without any key, loopback only is served.",
        unit="secret text",
        environment="LIVEOPS_API_KEY",
    )
    api_keys: Annotated[tuple[KeyEntry, ...], AfterValidator(each_hash_once)] = setting(
        (),
        meaning="Keys with name, scopes, sha256 and expires_at; `liveops key new` prints one.",
        unit="list of keys",
        repr=False,  # somebody may have put a key where its hash belongs
    )
    database: Database = Database()
    server: Server = Server()
    experiment_defaults: ExperimentDefaults = ExperimentDefaults()
    ramp: Ramp = Ramp()
    limits: Limits = Limits()
    allocator: Allocator = Allocator()
    evidence: Evidence = Evidence()
    checklist: Checklist = Checklist()
    kill_switch: KillSwitch = KillSwitch()
    audit: Audit = Audit()
    ageing: Ageing = Ageing()
    snapshots: Snapshots = Snapshots()
    backup: Backups = Backups()
    purge: Purge = Purge()
    maintenance: Maintenance = Maintenance()
    alert_rules: AlertRules = AlertRules()
    breakers: Breakers = Breakers()
    scheduler: Scheduler = Scheduler()
    data: Data = Data()
    logging: Logging = Logging()
    exchange: Exchange = Exchange()
    trading: Trading = Trading()
    model: Model = Model()
    risk: Risk = Risk()
    regime_filter: RegimeFilter = RegimeFilter()
    performance_guard: PerformanceGuard = PerformanceGuard()
    portfolio: Portfolio = Portfolio()
    operations: Operations = Operations()
    tuning: Tuning = Tuning()


class InvalidSettings(BanditError):
    """The settings cannot be used; every problem found is in `problems`, one a line of the message.

    >>> port = InvalidInput(field="server.port", rule="must be at most 65535", found=70000)
    >>> print(InvalidSettings([port]))
    1 problem in the settings
      server.port: must be at most 65535, found 70000
    """

    code = "invalid_settings"

    def __init__(self, problems: Sequence[InvalidInput]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n  ".join([f"{count} in the settings", *map(str, problems)]))
        self.problems = tuple(problems)


class Source(StrEnum):
    """Where a value comes from."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSettings:
    """Settings with what an operator wants to know about them.

    `sources` has an entry for every key; `not_in_force` names the keys that nothing reads yet.
    """

    settings: Settings
    warnings: tuple[str, ...]
    sources: Mapping[str, Source]
    not_in_force: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingRow:
    """One key as `liveops config show` prints it; `value` is plain JSON, secrets masked."""

    key: str
    value: object
    unit: str
    source: Source
    in_force: bool
    meaning: str


def read_environment() -> dict[str, str]:
    """Return a copy of the process environment, for `load_settings`."""
    return dict(os.environ)  # noqa: TID251 - the one place that reads it


def load_settings(
    *, path: Path | None, environ: Mapping[str, str], dotenv: Path | None
) -> LoadedSettings:
    """Return the settings from defaults, the settings file and the environment; later ones win.

    The file is `path`, else what LIVEOPS_CONFIG names, else config/config.yaml if there is one.
    `dotenv` is a file of variables that `environ` overrides; None takes `.env` beside the settings
    file or in the working directory, if there is one.

    Raises `InvalidSettings` with every problem found.
    """
    file = settings_file(path, environ)
    try:
        chosen = dotenv_file(file, directory=Path()) if dotenv is None else dotenv
        from_dotenv = _read_dotenv(chosen)
        variables = from_dotenv | dict(environ)
        document = Document()
        if file is not None:
            document = parse_yaml(read_text(file), name=file.name, variables=variables)
    except InvalidInput as problem:
        raise InvalidSettings([problem]) from problem
    overrides = {
        leaf.key: leaf.environment
        for leaf in leaves(Settings)
        if leaf.environment is not None and variables.get(leaf.environment)
    }
    for key, variable in overrides.items():
        _put(document.data, key, variables[variable])
    warnings = _unset_warnings(document, overrides)
    if CONFIG_VARIABLE in from_dotenv and CONFIG_VARIABLE not in environ:
        warnings.append(f"{CONFIG_VARIABLE} is not read from .env; set it in the environment")
    return LoadedSettings(
        settings=_validated(file, document, overrides, SecretsVault(variables)),
        warnings=tuple(warnings),
        sources={leaf.key: _source(leaf, document, overrides) for leaf in leaves(Settings)},
        not_in_force=tuple(leaf.key for leaf in leaves(Settings) if not leaf.in_force),
    )


def secrets_vault(path: Path | None, environ: Mapping[str, str]) -> SecretsVault:
    """Return what opens and closes encrypted values as `load_settings` would do it.

    Raises `InvalidSettings` for a `.env` that cannot be read.
    """
    try:
        file = settings_file(path, environ)
        from_dotenv = _read_dotenv(dotenv_file(file, directory=Path()))
    except InvalidInput as problem:
        raise InvalidSettings([problem]) from problem
    return SecretsVault(from_dotenv | dict(environ))


def _validated(
    file: Path | None, document: Document, overrides: Mapping[str, str], vault: SecretsVault
) -> Settings:
    origin = Origin(
        model=Settings,
        file_name=file.name if file is not None else "",
        document=document,
        overrides=overrides,
    )
    problems = _open_secrets(document.data, origin, vault)
    try:
        settings = Settings.model_validate(document.data)
    except ValidationError as error:
        # `from None`: the original knows the values, secrets among them.
        raise InvalidSettings([*problems, *problems_of(error, origin)]) from None
    if problems:
        raise InvalidSettings(problems)
    return settings


def _open_secrets(
    data: dict[str, object], origin: Origin, vault: SecretsVault
) -> list[InvalidInput]:
    """Put every secret in the place of what points at it; what cannot be opened becomes empty."""
    problems = []
    for leaf in leaves(Settings):
        text = _get(data, leaf.key) if leaf.secret else None
        if not isinstance(text, str):
            continue
        opened = None
        try:
            opened = vault.opened(text, setting=leaf.key)
        except InvalidInput as problem:
            problems.append(located(problem, leaf.key, origin))
        if opened != text:
            _put(data, leaf.key, opened)
    return problems


def describe(loaded: LoadedSettings) -> list[SettingRow]:
    """Return every key with its value, secrets masked, in the order of the documentation."""
    values = plain(loaded.settings)
    return [
        SettingRow(
            key=leaf.key,
            value=values[leaf.key],
            unit=leaf.unit,
            source=loaded.sources[leaf.key],
            in_force=leaf.in_force,
            meaning=leaf.field.description or "",
        )
        for leaf in leaves(Settings)
    ]


def plain(settings: Settings) -> dict[str, object]:
    """Return every key with its value as plain JSON, secrets masked.

    >>> plain(Settings(api_key="s3cret"))["api_key"] == plain(Settings())["api_key"]
    False
    >>> "s3cret" in str(plain(Settings(api_key="s3cret")))
    False
    """
    return {
        leaf.key: _plain(leaf, reduce(getattr, leaf.key.split("."), settings))
        for leaf in leaves(Settings)
    }


def without_password(url: str) -> str:
    """Return a database URL that can be shown.

    >>> without_password("postgresql://bot:s3cret@db.example:5432/ledger?sslmode=require")
    'postgresql://bot:***@db.example:5432/ledger?***'
    """
    scheme, _, rest = url.partition("://")
    # The last `@`, and nothing after the first sign before it: passwords hold unescaped signs.
    head, at, tail = rest.rpartition("@")
    user, *password = re.split("[:/?]", head, maxsplit=1)
    place, *query = tail.split("?", maxsplit=1)  # libpq also takes `?password=`
    hidden = f":{MASK}" if password else ""
    return f"{scheme}://{user}{hidden}{at}{place}{f'?{MASK}' if query else ''}"


def settings_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file that `load_settings` reads: `path`, else the variable's, else the usual."""
    if path is not None:
        return path
    if environ.get(CONFIG_VARIABLE):
        return Path(environ[CONFIG_VARIABLE])
    return CONFIG_FILE if CONFIG_FILE.is_file() else None


def dotenv_file(file: Path | None, *, directory: Path) -> Path | None:
    """Return the `.env` of a process in `directory`: beside its settings file, else there."""
    beside = [file.parent / DOTENV_NAME] if file is not None else []
    places = [*beside, directory / DOTENV_NAME]
    return next((path for path in places if path.is_file()), None)


def _read_dotenv(path: Path | None) -> dict[str, str]:
    variables: dict[str, str] = {}
    if path is None:
        return variables
    for binding in parse_stream(io.StringIO(read_text(path))):
        if binding.key is not None and binding.value is not None:
            variables[binding.key] = binding.value
        elif binding.error or binding.key is not None:
            # The text is not shown: it may hold a secret.
            where = f"{path.name} line {binding.original.line}"
            raise InvalidInput(field=where, rule="must be KEY=VALUE", found="something else")
    return variables


def _unset_warnings(document: Document, overrides: Mapping[str, str]) -> list[str]:
    return [
        f"{key}: {variable} is not set and taken as empty"
        for key, unset in document.unset.items()
        for variable in unset
        if key not in overrides
    ]


def _get(data: Mapping[str, object], key: str) -> object:
    found: object = data
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _put(data: dict[str, object], key: str, value: str | None) -> None:
    *sections, name = key.split(".")
    for section in sections:
        inner = data.get(section)
        if inner is None:
            inner = data[section] = {}
        if not isinstance(inner, dict):
            return  # validation will say that a section is expected here
        data = inner
    data[name] = value


def _source(leaf: Leaf, document: Document, overrides: Mapping[str, str]) -> Source:
    if leaf.key in overrides:
        return Source.ENVIRONMENT
    return Source.FILE if leaf.key in document.lines else Source.DEFAULT


def _plain(leaf: Leaf, value: object) -> object:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, str):
        return without_password(value) if leaf.secret else str(value)
    if isinstance(value, Path):
        return value.as_posix()
    return to_jsonable_python(value) if isinstance(value, tuple) else value
