"""What a bot holds, in the words of the environment that policies are trained in."""

from __future__ import annotations

from dataclasses import dataclass

from bandit.core.errors import InvalidInput
from bandit.core.verdicts import known

RETURN_MAX = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What is held of an instrument at the close of a bar; of nothing, the other two are 0.

    `held` is the position as a signed share of the nominal size, `unrealised_return` what closing
    it now would return, net of all costs, on its value at entry, and `holding_share` its bars so
    far over the longest holding of the policy's environment; more than 1 counts as 1.

    >>> Holding(unrealised_return=0.01)
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: unrealised_return: must be 0 where held is 0, found 0.01
    """

    held: float = 0.0
    unrealised_return: float = 0.0
    holding_share: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no position is."""
        for name, least, most in (
            ("held", -1.0, 1.0),
            ("unrealised_return", -RETURN_MAX, RETURN_MAX),
            ("holding_share", 0.0, RETURN_MAX),
        ):
            value = getattr(self, name)
            if known(value) is None or not least <= value <= most:
                rule = f"must be in [{least:g}, {most:g}]"
                raise InvalidInput(field=name, rule=rule, found=value)
            if value != 0 and self.held == 0:
                raise InvalidInput(field=name, rule="must be 0 where held is 0", found=value)

    @property
    def columns(self) -> tuple[float, float, float]:
        """Return what a policy observes of it: the side alone, whatever the size.

        >>> Holding(held=-0.5, unrealised_return=0.01, holding_share=0.25).columns
        (-1.0, 0.01, 0.25)
        """
        side = float((self.held > 0) - (self.held < 0))
        return side, self.unrealised_return, min(self.holding_share, 1.0)
