"""What went wrong at a hub, each in one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from cpfnet.errors import CpfnetError
from cpfnet.sharing.address import HubAddress
from cpfnet.text import printable

TIMEOUT = 30.0  # seconds without an answer
_LOG_IN = "log in with  hf auth login,  or set HF_TOKEN"


@contextmanager
def explained(address: HubAddress) -> Iterator[None]:
    """Turn the errors of huggingface_hub into our own.

    Raises:
        CpfnetError: in place of them.
    """
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except (errors.HfHubHTTPError, httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        for one in _chain(error):
            if (told := _sentence(one, address)) is not None:
                raise told from None
        raise


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it came from: uploads wrap theirs."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _sentence(error: BaseException, address: HubAddress) -> CpfnetError | None:
    import httpx2
    from huggingface_hub import constants, errors, get_token

    where = str(address)
    match error:
        case errors.LocalTokenNotFoundError():
            return no_token(address)
        case errors.GatedRepoError():
            return CpfnetError(
                "its owner gives access to those who ask for it",
                where=where,
                fix=f"ask on its page, {constants.ENDPOINT}/{address.repository}; then {_LOG_IN}",
            )
        case errors.RevisionNotFoundError():
            return CpfnetError(
                f"has no revision {address.revision!r}", where=where, fix="give a commit, tag or branch that it has"
            )
        case errors.RemoteEntryNotFoundError():
            return CpfnetError("lacks a file that it lists", where=where, fix="try again, or ask its owner")
        case errors.RepositoryNotFoundError():
            known = (
                "or one that your token may not see" if get_token() else "or a private one, and you are not logged in"
            )
            return CpfnetError(
                f"there is no such Model on the hub, {known}",
                where=where,
                fix=f"check OWNER/NAME; if it is private, {_LOG_IN}",
            )
        case errors.OfflineModeIsEnabled():
            return CpfnetError(
                "is not on this machine, and HF_HUB_OFFLINE forbids the network",
                where=where,
                fix="unset HF_HUB_OFFLINE, or name a commit that was downloaded",
            )
        case errors.HfHubHTTPError():
            return _answered(error, address)
        case httpx2.TimeoutException() | httpx2.ConnectError() | httpx2.ProxyError() | errors.LocalEntryNotFoundError():
            return CpfnetError(
                f"no connection to {constants.ENDPOINT}", where=where, fix="check the network, and run it again"
            )
        case httpx2.TransportError():
            return CpfnetError(
                f"the connection to {constants.ENDPOINT} was cut",
                where=where,
                fix="run it again: it goes on with what has arrived",
            )
        case json.JSONDecodeError():
            return CpfnetError(
                f"{constants.ENDPOINT} does not answer as a hub does", where=where, fix="check HF_ENDPOINT, or a proxy"
            )
        case OSError() if "Consistency check failed" in str(error):  # it ended early, without an error
            return CpfnetError(
                "the connection ended before the file did", where=where, fix="run it again: it goes on from there"
            )
        case ValueError() if "Invalid metadata in README.md" in str(error):
            said = printable(" ".join(str(error).split()))[:300]
            return CpfnetError(f"the hub refuses it: {said}", where=where, fix="correct --license, or leave it out")
        case errors.HFValidationError():
            return CpfnetError(printable(str(error))[:300], where=where, fix="choose another OWNER/NAME")
    return None


def _answered(error: object, address: HubAddress) -> CpfnetError:
    """What the hub's status means."""
    status = error.response.status_code  # type: ignore[attr-defined]
    said = printable(" ".join((error.server_message or "").split()))[:300]  # type: ignore[attr-defined]
    more = f": {said}" if said else ""
    what, fix = {
        401: (f"the hub does not accept your token{more}", _LOG_IN),
        403: (f"your token may not do this{more}", "use a token that may write to OWNER, or another OWNER/NAME"),
        404: (f"the hub does not know this{more}", "check OWNER/NAME"),
        409: (f"somebody made it at the same time{more}", "run it again"),
        412: (f"somebody changed it at the same time{more}", "run it again"),
        429: ("the hub had too many requests", "wait some minutes, and run it again"),
    }.get(status, (f"the hub answered {status}{more}", "run it again later"))
    return CpfnetError(what, where=str(address), fix=fix)


def no_token(address: HubAddress) -> CpfnetError:
    """Nobody is logged in."""
    return CpfnetError("sending takes a token of the hub, and there is none", where=str(address), fix=_LOG_IN)
