"""What the API server means by a refusal, and what to do about it. Pure."""

from __future__ import annotations

import json

from kabench.backends.patience import is_starting
from kabench.errors import ClusterError

CONFLICT, TOO_MANY = 409, 429

QUOTA_UNSEEN = "status unknown for quota"
NOT_YET = (QUOTA_UNSEEN, 'serviceaccount "default" not found')
"""Refusals that pass: controllers have yet to see a namespace that is new."""


class Refused(ClusterError):
    """The API server refused a call: `status` as HTTP has it, `message` in its own words."""

    def __init__(self, status: int, message: str, text: str) -> None:
        super().__init__(text)
        self.status, self.message = status, message


def said(text: str) -> str:
    """What the API server says in its Status, or the text itself."""
    try:
        status = json.loads(text)
        return str(status.get("message") or status.get("reason") or text)
    except (ValueError, AttributeError):
        return text.strip()[:300]


def passes(error: Refused) -> bool:
    """Whether it may be granted when asked again; a conflict is with another writer of the same instant."""
    if error.status >= 500 or error.status in (CONFLICT, TOO_MANY):
        return True
    if is_starting(error.status, error.message):
        return True
    return error.status == 403 and any(reason in error.message for reason in NOT_YET)


def refused(what: str, status: int, message: str) -> Refused:
    """A refusal, with what to do about it."""
    if status == 401:
        hint = "; the credentials are not accepted: log in anew"
    elif status == 403 and "exceeded quota" in message:
        hint = "; raise the quota, or ask for fewer replicas"
    elif status == 403 and ("PodSecurity" in message or "denied the request" in message):
        hint = "; the cluster's admission forbids it"
    elif status == 403:
        hint = "; kabench doctor lists the rights that are needed and missing"
    else:
        hint = ""
    return Refused(status, message, f"the API server refuses to {what}: {message}{hint}")
