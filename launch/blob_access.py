"""How to get at a container of Azure's blob storage, and errors that give no secret away.

A credential is never an option itself, as options are written to config.yaml, environment.json and logs: an option names the
environment variable or the file that holds it. It may be a connection string, a SAS token, or a whole SAS URL.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from launch.part_file import TransferError

SECRETS = re.compile(r"(?i)\b(sig|signature|AccountKey|SharedAccessSignature|skoid)=([^&;,\s'\"<>)]+)")
CHANGED = ("ConditionNotMet", "TargetConditionNotMet", "BlobAlreadyExists")
"""Answers to a request that was to hold only for the blob as it had been."""
FIRST_WAIT = 1
"""Seconds before the first retry."""
SHOWN = re.compile(r"(env|file):.+")
REFUSED = (401, 403, 409)
"""Answers to who may not look; 409 is that of an account closed to the public."""


class BlobChanged(Exception):
    """The blob is another one than that which a request was for."""


@dataclass(frozen=True)
class Address:
    """A place in blob storage: `path` is a blob or what the names of blobs begin with, like a folder; empty for all of a container."""

    account: str
    """URL of the account; empty if a connection string has it."""
    container: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """From "https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH", or "CONTAINER/PATH" of a connection string's account."""
        check_no_secret(text, "--remote")
        parts = urlsplit(text)
        if parts.scheme not in ("", "http", "https") or parts.fragment:
            raise TransferError(
                f"--remote {redact(text)}: expected https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH or CONTAINER/PATH"
            )
        first, account = 0, ""
        names = unquote(parts.path).strip("/").split("/")
        if parts.scheme:
            account = f"{parts.scheme}://{parts.netloc}"
            if re.fullmatch(r"localhost|[\d.]+", parts.hostname or ""):  # Azurite has the account's name in the path
                account, first = f"{account}/{names[0]}", 1
        if len(names) <= first or not names[first]:
            raise TransferError(f"--remote {text}: names no container")
        return cls(account, names[first], "/".join(names[first + 1 :]))


def check_no_secret(text: str, flag: str) -> None:
    """TransferError, without the text itself, if an option holds a signature or a key."""
    if "?" in text or SECRETS.search(text):
        raise TransferError(
            f"{flag}: what follows the question mark, and keys, would be written to logs and config.yaml: put the SAS into an environment "
            "variable or a file, and name that: --credential env:AZURE_SAS"
        )


def redact(text: str) -> str:
    """A text without the values of signatures and keys."""
    return SECRETS.sub(r"\1=REDACTED", text)


def check_credential(where: str) -> None:
    """TransferError, without the text itself, if this does not only name where a secret is."""
    if where and (not SHOWN.fullmatch(where) or SECRETS.search(where)):
        raise TransferError("--credential: expected env:NAME or file:PATH, which name where the secret is, not the secret itself")


def read_credential(where: str) -> str:
    """The secret that `where` names ("env:NAME", "file:PATH"); empty for a public container."""
    check_credential(where)
    kind, _, name = where.partition(":")
    if not where:
        return ""
    if kind == "env" and name not in os.environ:
        raise TransferError(f"--credential {where}: there is no environment variable {name}")
    try:
        text = os.environ[name] if kind == "env" else Path(name).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise TransferError(f"--credential {where}: cannot be read ({type(error).__name__})") from None
    if not text.strip():
        raise TransferError(f"--credential {where}: is empty")
    return text.strip()


def open_container(address: Address, credential: str) -> Any:
    """A client for the container; `credential` is what `read_credential` gave."""
    from azure.storage.blob import ContainerClient, ExponentialRetry

    # The SDK's own patience with a server that refuses connections is 84 s
    options: dict[str, Any] = {
        "retry_policy": ExponentialRetry(FIRST_WAIT, increment_base=2 * FIRST_WAIT, retry_total=2, random_jitter_range=0),
        "connection_timeout": 20,
        "read_timeout": 60,
    }
    try:
        if re.search(r"(?i)(AccountName|BlobEndpoint)=", credential):
            if address.account:
                raise TransferError(
                    f"--remote {address.account}/...: with a connection string, which names the account: CONTAINER/PATH"
                )
            return ContainerClient.from_connection_string(credential, address.container, **options)
        if not address.account:
            raise TransferError(
                f"--remote {address.container}/...: without a connection string: https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH"
            )
        token = credential.partition("?")[2] if "?" in credential else credential
        return ContainerClient(address.account, address.container, credential=token or None, **options)
    except (ValueError, AttributeError) as error:
        if isinstance(error, TransferError):
            raise
        raise TransferError(f"--credential: neither a connection string nor a SAS ({redact(str(error))})") from None


@contextmanager
def told(what: str, public: bool = False) -> Iterator[None]:
    """Errors of the SDK in here, one line each, without secrets and without the SDK's traceback, which holds them."""
    from azure.core.exceptions import AzureError, HttpResponseError

    try:
        yield
    except HttpResponseError as error:
        code = getattr(error, "error_code", None) or error.reason
        code = str(getattr(code, "value", code))
        if code in CHANGED:
            raise BlobChanged(what) from None
        message = f"{what}: {error.status_code} {code}"
        if error.status_code in REFUSED or (public and error.status_code == 404):
            advice = "it gives nothing without a credential" if public else "the credential does not allow it, or has expired"
            raise TransferError(f"{message}; {advice}: ask its owner for a SAS, and name it with --credential env:NAME") from None
        advice = "look at --remote" if error.status_code == 404 else "what is done is kept, the same command goes on with it"
        raise TransferError(f"{message}; {advice}") from None
    except AzureError as error:
        raise TransferError(
            f"{what}: cannot be reached ({_short(error)}); what is done is kept, the same command goes on with it"
        ) from None


def _short(error: Exception) -> str:
    """Of a chain of wrapped network errors the innermost, which names no address."""
    text = redact(str(error))
    return re.sub(r"(?s).*(?:: |\()(?=[^:(]*$)", "", text).strip(" )'\"") or type(error).__name__
