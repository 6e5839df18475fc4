"""The key sets (JWKS, RFC 7517) of JWT issuers: fetched within bounds, and kept while their URL is unavailable.

Each set is fetched when its issuer becomes known, and every ``jwks_refresh_s`` after that. A token with an unknown key
id has its issuer's set fetched at once, at most once in ``FLOOR_S``; all waiting calls share that fetch. While the URL
is unavailable, the last keys stay in use for ``jwks_max_age_s``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from gateway.concurrency.stopping import stop_soon, stop_tasks
from gateway.credentials.public_keys import InvalidKeySet, PublicKey, read
from gateway.peer import ClientGone
from gateway.refusals import Reason, Refused
from gateway.upstream.client import TooLong, UpstreamClient
from gateway.upstream.connection import UpstreamBroken

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.snapshot.documents import Issuer
    from gateway.snapshot.picture import Snapshot

logger = logging.getLogger(__name__)

FLOOR_S = 30.0
"""The shortest interval at which tokens with unknown key ids cause a fetch from an issuer's URL."""
TICK_S = 1.0


class KeySet:
    """The keys of one issuer, as last fetched."""

    __slots__ = ("failures", "is_wanted", "issuer", "keys", "read_at", "sought_at", "task", "tried_at")

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.keys: tuple[PublicKey, ...] = ()
        self.read_at: float | None = None
        self.tried_at: float | None = None
        self.sought_at: float | None = None
        """When it was last fetched because of an unknown key id."""
        self.failures = 0
        """The number of failed fetches in a row."""
        self.is_wanted = False
        """A token has an unknown key id, and it is too early to fetch the set again."""
        self.task: asyncio.Task[None] | None = None

    def fitting(self, kid: str | None, algorithm: str) -> list[PublicKey]:
        """Return the keys that may have signed a token with this header.

        A token without ``kid`` matches only if the issuer has a single fitting key.
        """
        found = [key for key in self.keys if key.fits(algorithm) and kid in (key.kid, None)]
        return found if kid is not None or len(found) == 1 else []

    def next_try_at(self, refresh_s: float) -> float:
        """Return when the set is due to be fetched again."""
        if self.tried_at is None:
            return 0.0
        if self.failures:
            # Without any key, retry sooner.
            return self.tried_at + (FLOOR_S if self.keys else min(FLOOR_S, 2.0 ** min(self.failures - 1, 5)))
        due_at = self.tried_at + refresh_s
        return min(due_at, self.may_be_sought_at) if self.is_wanted else due_at

    @property
    def may_be_sought_at(self) -> float:
        """When an unknown key id may next cause a fetch."""
        if self.failures and self.tried_at is not None:
            return self.tried_at + FLOOR_S
        return 0.0 if self.sought_at is None else self.sought_at + FLOOR_S


class KeySets:
    """The key sets of all issuers."""

    def __init__(
        self,
        snapshot: Snapshot,
        client: UpstreamClient,
        config: Config,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._snapshot = snapshot
        self._client = client
        self._config = config
        self._clock = clock
        self._refresh_s = min(config.jwks_refresh_s, config.jwks_max_age_s)
        self._sets: dict[str, KeySet] = {}
        self._nudge = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        snapshot.on_change(self._refresh)

    def start(self) -> None:
        """Start to fetch the key sets of all issuers, present and future; waits for none."""
        self._keeper = asyncio.create_task(self._keep(), name="jwks")

    async def stop(self) -> None:
        """Stop fetching."""
        await stop_tasks(self._keeper, *(set_.task for set_ in self._sets.values()))

    async def keys(self, issuer: Issuer, kid: str | None, algorithm: str) -> list[PublicKey]:
        """Return the keys, at least one, that may have signed a token of this issuer.

        Waits for a fetch that is due or running. Raises Refused: ``unauthenticated`` if the issuer has no such key,
        ``overloaded`` if that cannot be determined now.
        """
        set_ = self._of(issuer)
        found = set_.fitting(kid, algorithm)
        if found:
            return found
        await self._look_again(set_)
        found = set_.fitting(kid, algorithm)
        if found:
            return found
        if set_.task is not None or set_.failures or set_.read_at is None:
            raise Refused(
                Reason.OVERLOADED,
                "Tokens of this issuer cannot be checked right now.",
                retry_after_s=min(FLOOR_S, max(1.0, set_.next_try_at(self._refresh_s) - self._clock())),
                cause="token-keys-away",
            )
        raise Refused(Reason.UNAUTHENTICATED, cause="token-key-unknown")

    async def _look_again(self, set_: KeySet) -> None:
        now = self._clock()
        if set_.task is None:
            set_.is_wanted = set_.tried_at is not None
            if now >= set_.may_be_sought_at:
                self._start(set_, now)
        if set_.task is not None:
            await asyncio.wait({set_.task}, timeout=self._config.jwks_wait_s)

    def _of(self, issuer: Issuer) -> KeySet:
        set_ = self._sets.get(issuer.name)
        if set_ is None or set_.issuer is not issuer:
            if set_ is not None:
                self._drop(set_)
            new = self._sets[issuer.name] = KeySet(issuer)
            if set_ is not None and set_.read_at is not None and set_.issuer.jwks_url == issuer.jwks_url:
                # The URL is unchanged; only how tokens are checked has changed.
                for name in ("keys", "read_at", "tried_at", "sought_at", "failures"):
                    setattr(new, name, getattr(set_, name))
            set_ = new
        return set_

    def _drop(self, set_: KeySet) -> None:
        stop_soon(set_.task)

    def _refresh(self, kinds: frozenset[str]) -> None:
        if "issuer" in kinds:
            self._nudge.set()

    async def _keep(self) -> None:
        while True:
            try:
                self._look()
            except Exception:
                logger.exception("keeping the key sets failed; continuing")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._nudge.wait()
            self._nudge.clear()

    def _look(self) -> None:
        """Fetch the sets that are due; drop keys that are too old, and sets of deleted issuers."""
        now = self._clock()
        for name in [name for name in self._sets if self._snapshot.issuer(name) is None]:
            self._drop(self._sets.pop(name))
        for issuer in list(self._snapshot.issuers()):
            set_ = self._of(issuer)
            if set_.keys and set_.read_at is not None and now - set_.read_at > self._config.jwks_max_age_s:
                logger.warning("issuer %s: its keys are too old and are no longer used", issuer.name)
                set_.read_at = None
                self._replace(set_, [])
            if set_.task is None and set_.next_try_at(self._refresh_s) <= now:
                self._start(set_, now)

    def _start(self, set_: KeySet, now: float) -> None:
        set_.tried_at = now
        if set_.is_wanted:
            set_.sought_at, set_.is_wanted = now, False
        set_.task = asyncio.create_task(self._read(set_), name="jwks of an issuer")

    async def _read(self, set_: KeySet) -> None:
        name = set_.issuer.name
        try:
            async with asyncio.timeout(self._config.jwks_timeout_s):
                # Load PyJWT here, so that the first token does not wait for it.
                await asyncio.to_thread(import_module, "jwt")
                keys = read(await self._fetch(set_.issuer.jwks_url))
        except TooLong:
            self._failed(set_, f"it is larger than {self._config.jwks_max_bytes} bytes")
        except (InvalidKeySet, Refused, UpstreamBroken, ClientGone, OSError, ValueError) as error:
            self._failed(set_, _why(error))
        except Exception:
            set_.failures += 1
            logger.exception("issuer %s: its key set could not be fetched, the last one stays in use", name)
        else:
            if set_.failures:
                logger.info("issuer %s: its key set can be fetched again", name)
            set_.failures = 0
            set_.read_at = self._clock()
            self._replace(set_, keys)
        finally:
            set_.task = None

    def _failed(self, set_: KeySet, reason: str) -> None:
        set_.failures += 1
        if set_.failures == 1:
            logger.warning(
                "issuer %s: its key set could not be fetched, the last one stays in use: %s", set_.issuer.name, reason
            )

    async def _fetch(self, url: str) -> bytes:
        response = await self._client.fetch(
            "GET",
            url,
            {"accept": "application/jwk-set+json, application/json", "user-agent": "apimgmt"},
            max_bytes=self._config.jwks_max_bytes,
            keep_alive=False,
        )
        if response.status != 200:
            raise InvalidKeySet(f"it is answered with status {response.status}")
        return response.body

    def _replace(self, set_: KeySet, keys: list[PublicKey]) -> None:
        """Replace the keys by those published now; a key that stays is the same object as before."""
        before = {key.thumbprint: key for key in set_.keys}
        now = {key.thumbprint: before.get(key.thumbprint, key) for key in keys}
        set_.keys = tuple(now.values())
        withdrawn = before.keys() - now.keys()
        for thumbprint in withdrawn:
            before[thumbprint].is_withdrawn = True
        if withdrawn:
            self._snapshot.touch("issuer")


def _why(error: BaseException) -> str:
    if isinstance(error, Refused):
        return error.cause
    return str(error) or type(error).__name__
