"""The route on which Alertmanager says that an arm has to stop."""

from __future__ import annotations

import logging
import re
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BeforeValidator, ConfigDict, Field

from bandit.core.alert_actions import AlertResult, AlertStatus, Notice, kept_text
from bandit.core.errors import InvalidInput
from bandit.core.heartbeat import COUNT_MAX
from bandit.core.model import checked_instant
from bandit.service import alerting
from bandit.service.alerting import AlertPayload, AnsweredPayload
from liveops.api.answers import Answer, Time, time_of
from liveops.api.bodies import (
    JSON,
    Body,
    Instant,
    Whole,
    read,
    read_bytes,
    require_type,
    schema_of,
)
from liveops.api.parameters import Application, Caller
from liveops.api.problems import declared
from liveops.api.strict_json import parse

router = APIRouter(prefix="/v1", responses=declared(503))

ALERTS_BYTES_MAX: Final = 4 * 1024 * 1024

ALERTS_MAX: Final = 1000
"""Alerts of one payload that are looked at; the others count as cut off."""

_FINER = re.compile(r"(\.[0-9]{6})[0-9]{1,3}(?=[Z+-])")
_log = logging.getLogger(__name__)


def _in_microseconds(value: object) -> object:
    # Go writes nanoseconds.
    return _FINER.sub(r"\1", value) if isinstance(value, str) else value


class ToldAlert(Body):
    """One alert; what else newer Alertmanagers tell of it is not read."""

    model_config = ConfigDict(extra="ignore")

    status: Annotated[AlertStatus, Field(strict=False)]
    labels: dict[str, str] = Field(
        description="`experiment`, `policy` and `action` (`throttle` or `halt`) name whom to stop."
    )
    starts_at: Annotated[Instant, BeforeValidator(_in_microseconds)] = Field(alias="startsAt")
    fingerprint: str = Field(json_schema_extra={"pattern": "^[0-9a-zA-Z]{1,64}$"})

    def notice(self) -> Notice:
        """Return the checked notice; raises `InvalidInput` naming the field and the rule."""
        return Notice(
            fingerprint=self.fingerprint,
            status=self.status,
            starts_at=checked_instant(self.starts_at, field="startsAt"),
            alertname=self.labels.get("alertname", ""),
            experiment=self.labels.get("experiment", ""),
            policy=self.labels.get("policy", ""),
            action=self.labels.get("action", ""),
        )


class NewAlerts(Body):
    """What Alertmanager sends to a webhook, version 4; keys that newer ones add are not read."""

    model_config = ConfigDict(extra="ignore")

    version: Literal["4"]
    receiver: str = ""
    truncated: Whole = Field(default=0, alias="truncatedAlerts")
    alerts: list[ToldAlert]

    def payload(self) -> AlertPayload:
        """Return the checked payload; raises `InvalidInput` naming the field and the rule."""
        notices = tuple(alert.notice() for alert in self.alerts)
        if not 0 <= self.truncated <= COUNT_MAX:
            rule = f"must lie in 0..{COUNT_MAX}"
            raise InvalidInput(field="truncatedAlerts", rule=rule, found=self.truncated)
        return AlertPayload(
            notices=notices[:ALERTS_MAX],
            truncated=self.truncated + len(notices[ALERTS_MAX:]),
            receiver=self.receiver,
        )


class AlertAnswer(Answer):
    """What was done about one alert."""

    fingerprint: str
    status: AlertStatus
    starts_at: Time
    result: AlertResult
    before: AlertResult | None = Field(description="What was done when it first came, if it did.")


class StoppedArm(Answer):
    """An arm that was halted for alerts that were cut off."""

    experiment: str
    policy: str


class AlertsAnswer(Answer):
    """What was done about each alert, in their order."""

    results: list[AlertAnswer]
    truncated: int = Field(description="Alerts that were cut off, here or by the sender.")
    halted: list[StoppedArm] = Field(description="Whom that halted.")


async def _body(request: Request) -> bytes:
    require_type(request, JSON)
    return await read_bytes(request, most=ALERTS_BYTES_MAX)


@router.post(
    "/webhooks/alertmanager",
    openapi_extra=schema_of(NewAlerts),
    responses=declared(400, 413, 415, 422),
)
def hear_alerts(
    app: Application, caller: Caller, body: Annotated[bytes, Depends(_body)]
) -> AlertsAnswer:
    """Stop the arms that alerts name; a resolved one undoes nothing, and the same again neither.

    Once it is answered, no assignment to an arm that it stopped commits.
    """
    payload = read(NewAlerts, parse(body)).payload()
    done = alerting.hear(app.engine, payload, now=app.clock.now(), key=caller)
    _log_stopped(done, key=caller)
    return AlertsAnswer(
        results=[
            AlertAnswer(
                fingerprint=one.notice.fingerprint,
                status=one.notice.status,
                starts_at=time_of(one.notice.starts_at),
                result=one.result,
                before=one.before,
            )
            for one in done.notices
        ],
        truncated=payload.truncated,
        halted=[StoppedArm(experiment=name, policy=policy) for name, policy in done.halted],
    )


def _log_stopped(done: AnsweredPayload, *, key: str) -> None:
    for one in done.notices:
        if one.result in (AlertResult.HALTED, AlertResult.THROTTLED):
            told = {
                "experiment": one.notice.experiment,
                "policy": one.notice.policy,
                "alertname": kept_text(one.notice.alertname),
                "key_name": key,
            }
            _log.warning("[ALERT] arm %s by an alert", one.result.value, extra=told)
    for name, policy in done.halted:
        told = {"experiment": name, "policy": policy, "key_name": key}
        _log.warning("[ALERT] arm halted: alerts were cut off", extra=told)
