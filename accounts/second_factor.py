"""The second factor of operators: codes of an authenticator app (TOTP, RFC 6238), and recovery codes for its loss.

The secret of an app and the digests of recovery codes are derived with ``SECRET_KEY``: who reads the database alone
can compute no code. A code is accepted once. Wrong codes make the account wait, whatever the counters in Redis do.
"""

from __future__ import annotations

import base64
import re
import secrets
from datetime import timedelta
from urllib.parse import quote, urlencode

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django_otp.oath import TOTP

from accounts.actor import current
from accounts.models import Authenticator, RecoveryCode
from audit.services import record
from gateway.refusals import Reason, Refused

PROVED = "second_factor"
"""Name in the session: the authenticator whose code it has proved."""
TOLERANCE_STEPS = 1
FREE_FAILURES = 5
"""Wrong codes in succession before the account must wait."""
FIRST_WAIT_S, WAIT_MAX_S = 30, 900
RECOVERY_CODES = 10
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_SECRET_SALT, _CODE_SALT = "accounts.second_factor.secret", "accounts.second_factor.recovery"
_TOTP_CODE = re.compile(r"[0-9]{6}", re.ASCII)


def page_before(request: HttpRequest) -> str | None:
    """Return the name of the page that a signed-in session must pass before any other, or None."""
    confirmed = Authenticator.objects.exclude(confirmed_at=None).filter(account=request.user.pk)
    pk = confirmed.values_list("pk", flat=True).first()
    if pk is None:
        return "enrol" if settings.REQUIRE_SECOND_FACTOR else None
    return None if request.session.get(PROVED) == pk else "second-factor"


def mark_proved(request: HttpRequest, authenticator: Authenticator) -> None:
    """Mark a session as having proved its second factor, under a new session id."""
    request.session[PROVED] = authenticator.pk
    request.session.cycle_key()


def authenticator_of(account: User) -> Authenticator | None:
    """Return the confirmed authenticator of an account, or None."""
    return Authenticator.objects.exclude(confirmed_at=None).filter(account=account).first()


def begin_enrolment(account: User) -> Authenticator:
    """Return the authenticator that waits for its first code, with the same secret until it is confirmed."""
    fields = {"salt": secrets.token_hex(16), "created_at": timezone.now()}
    return Authenticator.objects.get_or_create(account=account, defaults=fields)[0]


def confirm(account: User, code: str, *, by: str) -> tuple[Authenticator, list[str]] | None:
    """Confirm the authenticator that waits by its first code, and return it with new recovery codes; None if wrong."""
    with transaction.atomic():
        waiting = Authenticator.objects.select_for_update().filter(account=account, confirmed_at=None).first()
        if waiting is None or not _accept_code(waiting, code):
            return None
        waiting.confirmed_at, waiting.failures, waiting.blocked_until = timezone.now(), 0, None
        waiting.save()
        record("second-factor", account.get_username(), before=None, after=_recorded(waiting), **_author(by))
        return waiting, _new_codes(waiting)


def prove(account: User, code: str) -> Authenticator | None:
    """Return the authenticator whose code, or whose recovery code, this is; None if it is wrong.

    Raises Refused ``rate-limited`` while the account must wait.
    """
    with transaction.atomic():
        found = Authenticator.objects.select_for_update().exclude(confirmed_at=None).filter(account=account).first()
        if found is None:
            return None
        now = timezone.now()
        if found.blocked_until is not None and found.blocked_until > now:
            wait_s = (found.blocked_until - now).total_seconds()
            raise Refused(Reason.RATE_LIMITED, "Too many wrong codes. Try again later.", retry_after_s=wait_s)
        is_right = _accept_code(found, code) or _use_recovery_code(found, code)
        found.failures = 0 if is_right else found.failures + 1
        found.blocked_until = None
        if found.failures >= FREE_FAILURES:
            wait_s = min(FIRST_WAIT_S * 2 ** min(found.failures - FREE_FAILURES, 10), WAIT_MAX_S)
            found.blocked_until = now + timedelta(seconds=wait_s)
        found.save()
    return found if is_right else None


def renew_recovery_codes(authenticator: Authenticator, *, by: str) -> list[str]:
    """Replace the recovery codes and return the new ones, which cannot be read again."""
    name = authenticator.account.get_username()
    with transaction.atomic():
        before = _recorded(authenticator)
        codes = _new_codes(authenticator)
        after = before | {"recovery_codes_made_at": timezone.now().isoformat()}
        record("second-factor", name, before=before, after=after, **_author(by))
    return codes


def remove(authenticator: Authenticator, *, by: str) -> None:
    """Remove the second factor of an account, with its recovery codes."""
    with transaction.atomic():
        record("second-factor", authenticator.account.get_username(), before=_recorded(authenticator), after=None,
               **_author(by))  # fmt: skip
        authenticator.delete()


def secret_of(authenticator: Authenticator) -> bytes:
    """Return the secret that the app shares, of 160 bits."""
    return salted_hmac(_SECRET_SALT, authenticator.salt, algorithm="sha1").digest()


def secret_text(authenticator: Authenticator) -> str:
    """Return the secret for typing into an app."""
    return base64.b32encode(secret_of(authenticator)).decode()


def uri_of(authenticator: Authenticator) -> str:
    """Return the URI that apps read from a QR code."""
    label = quote(f"apimgmt:{authenticator.account.get_username()}")
    query = {"secret": secret_text(authenticator), "issuer": "apimgmt", "algorithm": "SHA1", "digits": 6, "period": 30}
    return f"otpauth://totp/{label}?{urlencode(query)}"


def _accept_code(authenticator: Authenticator, code: str) -> bool:
    """Return whether this is a code of now that was not used; then it, and those before it, are used."""
    digits = re.sub(r"\s", "", code)
    totp = TOTP(secret_of(authenticator))
    totp.time = timezone.now().timestamp()
    if not _TOTP_CODE.fullmatch(digits):
        return False
    if not totp.verify(int(digits), TOLERANCE_STEPS, authenticator.last_step + 1):
        return False
    authenticator.last_step = totp.t()
    return True


def _use_recovery_code(authenticator: Authenticator, code: str) -> bool:
    deleted, _ = RecoveryCode.objects.filter(authenticator=authenticator, digest=_digest(code)).delete()
    return deleted > 0


def _new_codes(authenticator: Authenticator) -> list[str]:
    authenticator.recovery_codes.all().delete()
    codes = ["-".join(_letters(5) for _ in range(2)) for _ in range(RECOVERY_CODES)]
    RecoveryCode.objects.bulk_create(RecoveryCode(authenticator=authenticator, digest=_digest(code)) for code in codes)
    return codes


def _letters(count: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(count))


def _digest(code: str) -> str:
    return salted_hmac(_CODE_SALT, re.sub(r"[\s-]", "", code).lower(), algorithm="sha256").hexdigest()


def _recorded(authenticator: Authenticator) -> dict[str, str]:
    confirmed_at = authenticator.confirmed_at
    return {
        "account": authenticator.account.get_username(),
        "confirmed_at": confirmed_at.isoformat() if confirmed_at else "",
    }


def _author(by: str) -> dict[str, str]:
    return {"note": current().note(), "by": by}
