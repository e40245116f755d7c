"""Which versions of what trains are installed, without importing any of it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from bandit.core.errors import ExtraMissing


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the installed version of each package; raises `ExtraMissing` where one is not there.

    >>> sorted(versions(["numpy"]))
    ['numpy']
    """
    try:
        return {name: version(name) for name in packages}
    except PackageNotFoundError as error:
        raise ExtraMissing(f"{error.name} is not installed: make learners") from error
