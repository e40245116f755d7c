"""Secrets kept elsewhere: in a file, encrypted in place, or in AWS Secrets Manager.

Wherever a secret is expected, its text may say where it lies: `file:/run/secrets/db`,
`fernet:gAAAA…`, `aws-sm:NAME` or `aws-sm:NAME#FIELD`. Any other text is the secret itself. Errors
name the setting and the place, never the secret.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bandit.core.errors import InvalidInput

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

KEY_VARIABLE: Final = "LIVEOPS_SECRET_KEY"
KEY_FILE_VARIABLE: Final = "LIVEOPS_SECRET_KEY_FILE"
BYTES_MAX: Final = 64 * 1024
AWS_CONNECT_SECONDS, AWS_READ_SECONDS, AWS_ATTEMPTS = 3, 5, 2
_FILE, _FERNET, _AWS = "file:", "fernet:", "aws-sm:"


class SecretsVault:
    """Opens what secret settings point at, with the variables that the settings see."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        """Take the keys that open encrypted values from `variables`, once one is met."""
        self._variables = variables
        self._fetched: dict[str, str] = {}

    def opened(self, text: str, *, setting: str) -> str:
        """Return the secret that `text` is or points at.

        >>> SecretsVault({}).opened("correct-horse", setting="api_key")
        'correct-horse'
        >>> SecretsVault({}).opened("file:run/key", setting="api_key")
        Traceback (most recent call last):
        bandit.core.errors.InvalidInput: api_key: must name its file from the root, found run/key

        Raises `InvalidInput` naming `setting` and the place.
        """
        if text.startswith(_FILE):
            return secret_file(text.removeprefix(_FILE), setting=setting)
        if text.startswith(_FERNET):
            return self._decrypted(text.removeprefix(_FERNET), setting=setting)
        if text.startswith(_AWS):
            name, _, part = text.removeprefix(_AWS).partition("#")
            if name not in self._fetched:  # a setting each may point at the fields of one
                self._fetched[name] = _from_aws(name, setting=setting)
            return _field(self._fetched[name], part, name=name, setting=setting)
        return text

    def encrypted(self, secret: str) -> str:
        """Return `secret` as settings may hold it; the first of the secret keys closes it."""
        return _FERNET + self._keys().encrypt(secret.encode()).decode()

    def _decrypted(self, token: str, *, setting: str) -> str:
        from cryptography.fernet import InvalidToken

        try:
            return self._keys().decrypt(token.encode()).decode()
        except (InvalidToken, ValueError):
            rule = f"must have been encrypted with a key in {self._key_place()}"
            raise InvalidInput(field=setting, rule=rule, found="another text") from None

    def _keys(self) -> MultiFernet:
        from cryptography.fernet import Fernet, MultiFernet

        text = self._variables.get(KEY_VARIABLE) or ""
        if not text and self._variables.get(KEY_FILE_VARIABLE):
            text = secret_file(self._variables[KEY_FILE_VARIABLE], setting=KEY_FILE_VARIABLE)
        try:
            keys = [Fernet(key) for key in text.replace(",", " ").split()]
        except ValueError:
            rule = "must hold keys that `liveops config secret-key` made"
            raise InvalidInput(field=self._key_place(), rule=rule, found="another text") from None
        if not keys:
            rule = f"must be set, or {KEY_FILE_VARIABLE}: encrypted values need their key"
            raise InvalidInput(field=KEY_VARIABLE, rule=rule, found="nothing")
        return MultiFernet(keys)

    def _key_place(self) -> str:
        return KEY_VARIABLE if self._variables.get(KEY_VARIABLE) else KEY_FILE_VARIABLE


def new_secret_key() -> str:
    """Return a key for `LIVEOPS_SECRET_KEY`."""
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


def secret_file(name: str, *, setting: str) -> str:
    """Return the text of a file that only its owner may read, without its last line break.

    Raises `InvalidInput` naming `setting` and the file.
    """
    path = Path(name)
    if not path.is_absolute():
        raise InvalidInput(field=setting, rule="must name its file from the root", found=name)
    try:
        # Non-blocking, as opening a pipe would wait for its writer.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        rule = f"must name a readable file, not {name}"
        raise InvalidInput(field=setting, rule=rule, found=error.strerror) from None
    try:
        _require_private(os.fstat(handle), name, setting=setting)
        content = os.read(handle, BYTES_MAX + 1)
    finally:
        os.close(handle)
    try:
        text = content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        rule = f"must be UTF-8 text in {name}"
        raise InvalidInput(field=setting, rule=rule, found="other bytes") from None
    if not text or len(content) > BYTES_MAX:
        rule = f"must be 1 to {BYTES_MAX} bytes in {name}"
        found = f"more than {BYTES_MAX}" if text else "nothing"
        raise InvalidInput(field=setting, rule=rule, found=found)
    return text


def _require_private(status: os.stat_result, name: str, *, setting: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        rule = f"must name a regular file, not {name}"
        raise InvalidInput(field=setting, rule=rule, found="another kind")
    mode = stat.S_IMODE(status.st_mode)
    if mode not in (0o600, 0o400):
        rule = f"must lie in a file that its owner alone may read: chmod 600 {name}"
        raise InvalidInput(field=setting, rule=rule, found=f"mode {mode:04o}")


def _from_aws(name: str, *, setting: str) -> str:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    limits = Config(
        connect_timeout=AWS_CONNECT_SECONDS,
        read_timeout=AWS_READ_SECONDS,
        retries={"total_max_attempts": AWS_ATTEMPTS},
    )
    rule = f"must be in AWS Secrets Manager under {name}"
    try:
        answer = boto3.client("secretsmanager", config=limits).get_secret_value(SecretId=name)
    except ClientError as error:
        found = error.response["Error"]["Code"]
        raise InvalidInput(field=setting, rule=rule, found=found) from None
    except BotoCoreError as error:
        raise InvalidInput(field=setting, rule=rule, found=type(error).__name__) from None
    text = answer.get("SecretString")
    if not isinstance(text, str) or not text:
        raise InvalidInput(field=setting, rule=rule, found="no text")
    return text


def _field(text: str, part: str, *, name: str, setting: str) -> str:
    if not part:
        return text
    rule = f"must be the text {part!r} of the JSON object in {name}"
    try:
        values = json.loads(text)
    except ValueError:
        # `from None`, as the original keeps the document.
        raise InvalidInput(field=setting, rule=rule, found="no JSON") from None
    found = values.get(part) if isinstance(values, dict) else None
    if not isinstance(found, str) or not found:
        raise InvalidInput(field=setting, rule=rule, found="no such text")
    return found
