"""What a stored policy says about itself: its network, its actions, and what it was made from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Self, TypeVar

from bandit.core.errors import InvalidInput
from bandit.core.model import PolicySha, checked_document, checked_instant
from learners.canonical_json import canonical, parsed
from learners.ensemble import Ensemble
from learners.models import Model
from learners.network import Activation, Algorithm, Network, require_count

SPEC_SIZE_MAX = 65_536
GOLDEN_MAX = 256
PACKAGES_MAX = 64
HORIZON_BARS_MAX = 1_000
STEPS_MAX = 2**53 - 1
FORMAT, FORMAT_ENSEMBLE = 1, 2

_ACTION_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,63}")
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"

_MODEL_KEYS = {FORMAT: "network", FORMAT_ENSEMBLE: "ensemble encoder horizon_bars"}

_Kind = TypeVar("_Kind", Algorithm, Activation)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionSpec:
    """One action: its name, and the position it wants, as a signed share of the nominal size."""

    name: str
    position: float

    def __post_init__(self) -> None:
        """Refuse another name or a position that is no share."""
        _require_match("actions.name", self.name, _ACTION_NAME)
        _require_number("actions.position", self.position)
        if not -1 <= self.position <= 1:
            raise InvalidInput(
                field="actions.position", rule="must be in [-1, 1]", found=self.position
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedPart:
    """A part of another module, in its own JSON and under its own digest; only bounded here."""

    digest: str
    body: Mapping[str, object]

    def __post_init__(self) -> None:
        """Refuse what is no digest or no JSON object; keep the body from being changed."""
        _require_match("digest", self.digest, _DIGEST)
        checked_document(dict(self.body), field="body")
        object.__setattr__(self, "body", MappingProxyType(dict(self.body)))

    @classmethod
    def of(cls, body: Mapping[str, Any], *, digest: str | None = None) -> Self:
        """Return a part under its own digest, or else under that of its canonical JSON."""
        found = hashlib.sha256(canonical(dict(body))).hexdigest() if digest is None else digest
        return cls(digest=found, body=body)

    def to_document(self) -> dict[str, object]:
        """Return the part as JSON."""
        return {"digest": self.digest, "body": dict(self.body)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """How a policy came about: enough to train it again.

    The data are the bars from `data_from` to `data_to`, the close of the last one (UTC), whose
    content has the digest `data_digest`; `packages` are the versions that were installed.
    """

    seed: int
    steps: int
    data_digest: str
    data_from: datetime
    data_to: datetime
    packages: Mapping[str, str]

    def __post_init__(self) -> None:
        """Refuse what no training can have been."""
        require_count("training.seed", self.seed, 0, STEPS_MAX)
        require_count("training.steps", self.steps, 0, STEPS_MAX)
        _require_match("training.data_digest", self.data_digest, _DIGEST)
        for name in ("data_from", "data_to"):
            object.__setattr__(
                self, name, checked_instant(getattr(self, name), field=f"training.{name}")
            )
        if not self.data_from < self.data_to:
            raise InvalidInput(
                field="training.data_to", rule="must be after data_from", found=self.data_to
            )
        require_count("training.packages", len(self.packages), 0, PACKAGES_MAX)
        for package, version in self.packages.items():
            _require_match("training.packages", package, _PACKAGE)
            _require_match(f"training.packages.{package}", version, _PACKAGE)
        object.__setattr__(self, "packages", MappingProxyType(dict(self.packages)))

    def to_document(self) -> dict[str, object]:
        """Return the record as JSON, times in UTC to the microsecond."""
        return {
            "seed": self.seed,
            "steps": self.steps,
            "data_digest": self.data_digest,
            "data_from": self.data_from.strftime(_TIME),
            "data_to": self.data_to.strftime(_TIME),
            "packages": dict(self.packages),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyArtifactSpec:
    """A policy but for its weights.

    `golden` is the number of observations whose answers are kept beside it. `features` (with the
    scaler of its inputs in its body) says how candles become observations, `environment` in which
    market it was trained. `encoder` is the hash of the one whose embeddings it sees, if it sees
    any; `horizon_bars` is how long a trade of a classifier's labels is held.
    """

    network: Model
    actions: tuple[ActionSpec, ...]
    features: DescribedPart
    scaler: DescribedPart
    environment: DescribedPart
    training: TrainingRecord
    golden: int
    encoder: PolicySha | None = None
    horizon_bars: int | None = None

    def __post_init__(self) -> None:
        """Refuse actions that do not fit the network, and a document that is too large."""
        if len(self.actions) != self.network.actions:
            rule = f"must be the {self.network.actions} of the network"
            raise InvalidInput(field="actions", rule=rule, found=len(self.actions))
        if len({action.name for action in self.actions}) != len(self.actions):
            found = ", ".join(action.name for action in self.actions)
            raise InvalidInput(field="actions", rule="must have different names", found=found)
        if self.encoder is not None:
            _require_match("encoder", self.encoder, _DIGEST)
        if isinstance(self.network, Ensemble):
            require_count("horizon_bars", self.horizon_bars, 1, HORIZON_BARS_MAX)
        else:
            for field in ("encoder", "horizon_bars"):
                if (found := getattr(self, field)) is not None:
                    rule = "must be nothing beside a perceptron"
                    raise InvalidInput(field=field, rule=rule, found=found)
        require_count("golden", self.golden, 1, GOLDEN_MAX)
        size = len(self.to_bytes())
        if size > SPEC_SIZE_MAX:
            rule = f"must have at most {SPEC_SIZE_MAX} bytes as JSON"
            raise InvalidInput(field="spec", rule=rule, found=size)

    def to_bytes(self) -> bytes:
        """Return the specification as it is stored: canonical JSON."""
        return canonical(
            {
                **self._model(),
                "actions": [{"name": a.name, "position": a.position} for a in self.actions],
                "features": self.features.to_document(),
                "scaler": self.scaler.to_document(),
                "environment": self.environment.to_document(),
                "training": self.training.to_document(),
                "golden": self.golden,
            }
        )

    def _model(self) -> dict[str, object]:
        network = self.network
        if isinstance(network, Ensemble):
            return {
                "format": FORMAT_ENSEMBLE,
                "ensemble": network.to_json(),
                "encoder": self.encoder,
                "horizon_bars": self.horizon_bars,
            }
        return {
            "format": FORMAT,
            "network": {
                "algorithm": network.algorithm.value,
                "inputs": network.inputs,
                "hidden": list(network.hidden),
                "activation": network.activation.value,
                "quantiles": network.quantiles,
                "temperature": network.temperature,
            },
        }


def spec_from_bytes(content: bytes) -> PolicyArtifactSpec:
    """Read a stored specification; every byte of it must be the one this version would write.

    Raises `InvalidInput` with the field and the rule.
    """
    found = parsed(content, field="spec")
    version = found.get("format") if isinstance(found, dict) else FORMAT
    if type(version) is not int or version not in _MODEL_KEYS:
        rule = f"must be {' or '.join(map(str, _MODEL_KEYS))}"
        raise InvalidInput(field="format", rule=rule, found=version)
    body = members(
        "spec",
        found,
        f"format {_MODEL_KEYS[version]} actions features scaler environment training golden",
    )
    actions = _list("actions", body["actions"])
    model: Model
    if version == FORMAT_ENSEMBLE:
        model = Ensemble.from_json(body["ensemble"])
    else:
        model = _network(body["network"], actions=len(actions))
    spec = PolicyArtifactSpec(
        network=model,
        actions=tuple(_action(action) for action in actions),
        features=part_in("features", body["features"]),
        scaler=part_in("scaler", body["scaler"]),
        environment=part_in("environment", body["environment"]),
        training=training_in(body["training"]),
        golden=body["golden"],
        encoder=body.get("encoder"),
        horizon_bars=body.get("horizon_bars"),
    )
    if spec.to_bytes() != content:
        raise InvalidInput(field="spec", rule="must be written as this version does", found="else")
    return spec


def _network(value: object, *, actions: int) -> Network:
    body = members("network", value, "algorithm inputs hidden activation quantiles temperature")
    _require_number("network.temperature", body["temperature"])
    return Network(
        algorithm=_member("network.algorithm", body["algorithm"], Algorithm),
        inputs=body["inputs"],
        hidden=tuple(_list("network.hidden", body["hidden"])),
        activation=_member("network.activation", body["activation"], Activation),
        actions=actions,
        quantiles=body["quantiles"],
        temperature=float(body["temperature"]),
    )


def _action(value: object) -> ActionSpec:
    body = members("actions", value, "name position")
    _require_number("actions.position", body["position"])
    return ActionSpec(name=body["name"], position=float(body["position"]))


def part_in(field: str, value: object) -> DescribedPart:
    """Return the part that `DescribedPart.to_document` gave; raises `InvalidInput` for others."""
    body = members(field, value, "digest body")
    if not isinstance(body["body"], dict):
        raise InvalidInput(field=f"{field}.body", rule="must be an object", found=body["body"])
    return DescribedPart(digest=body["digest"], body=body["body"])


def training_in(value: object) -> TrainingRecord:
    """Return the record that `to_document` gave; raises `InvalidInput` for anything else."""
    body = members("training", value, "seed steps data_digest data_from data_to packages")
    if not isinstance(body["packages"], dict):
        found = body["packages"]
        raise InvalidInput(field="training.packages", rule="must be an object", found=found)
    times = {name: _time(f"training.{name}", body[name]) for name in ("data_from", "data_to")}
    return TrainingRecord(
        seed=body["seed"],
        steps=body["steps"],
        data_digest=body["data_digest"],
        packages=body["packages"],
        **times,
    )


def members(field: str, value: object, names: str) -> dict[str, Any]:
    """Return an object that must have exactly the keys `names`, which stand between blanks."""
    expected = set(names.split())
    if not isinstance(value, dict):
        raise InvalidInput(field=field, rule="must be an object", found=type(value).__name__)
    if value.keys() != expected:
        odd = ", ".join(ascii(name) for name in sorted(value.keys() ^ expected))
        rule = f"must have the keys {', '.join(sorted(expected))}"
        raise InvalidInput(field=field, rule=rule, found=f"a difference in {odd}")
    return value


def _list(field: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidInput(field=field, rule="must be a list", found=type(value).__name__)
    return value


def _member(field: str, value: object, kind: type[_Kind]) -> _Kind:
    known = [member.value for member in kind]
    if value not in known:
        raise InvalidInput(field=field, rule=f"must be one of {', '.join(known)}", found=value)
    return kind(value)


def _time(field: str, value: object) -> datetime:
    try:
        return datetime.strptime(str(value), _TIME).replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidInput(field=field, rule=f"must be a time like {_TIME}", found=value) from error


def _require_match(field: str, value: object, pattern: re.Pattern[str]) -> None:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise InvalidInput(field=field, rule=f"must match {pattern.pattern}", found=ascii(value))


def _require_number(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(field=field, rule="must be a number", found=value)
