"""Performs topic operations and keeps the subscription state consistent with the broker. Never the public
interface.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from elbus_client.connection.core import Core
from elbus_client.connection.subscription_state import FilterUser
from elbus_client.errors import ACCESS_DENIED, BAD_DATA, OK, DisconnectedError, Error, TimedOutError
from elbus_client.wire.constants import (
    EXCLUDE,
    OPERATIONS,
    PROBE_FILTER,
    SUBSCRIBE,
    UNEXCLUDE,
    UNSUBSCRIBE,
)
from elbus_client.wire.requests import HEADER_BYTES, encode_filters

LOG = logging.getLogger("elbus_client")

#: Limit of filters that an error lists: the broker does not report which of them it refuses.
LISTED_FILTERS = 5


async def subscribe(core: Core, filters: list[str], user: FilterUser) -> None:
    """Adds a use of each filter."""
    added: list[str] = []

    def add() -> list[str]:
        added.extend(filter for filter in filters if core.subscriptions.subscribe(filter, user))
        return filters

    def revert() -> list[str]:
        for filter in added:
            core.subscriptions.unsubscribe(filter, user)
        core.demux.filters_changed()
        return added

    await _change_or_revert(core, SUBSCRIBE, filters, add, revert)
    core.subscriptions.acknowledge(filters)
    core.demux.filters_changed()


async def unsubscribe(core: Core, filters: list[str], user: FilterUser) -> None:
    """Removes a use of each filter; unsubscribes from those without another use."""
    state = core.subscriptions
    unused = [filter for filter in filters if state.unsubscribe(filter, user)]
    core.demux.filters_changed()

    def still_unused() -> list[str]:
        # another part of the client can have subscribed again meanwhile
        return [filter for filter in unused if not state.is_subscribed(filter)]

    await _change(core, UNSUBSCRIBE, unused, still_unused)


async def exclude(core: Core, filters: list[str]) -> None:
    """Adds exclusions."""
    added: list[str] = []

    def add() -> list[str]:
        added.extend(filter for filter in filters if core.subscriptions.exclude(filter))
        return filters

    def revert() -> list[str]:
        for filter in added:
            core.subscriptions.unexclude(filter)
        return added

    await _change_or_revert(core, EXCLUDE, filters, add, revert)


async def unexclude(core: Core, filters: list[str]) -> None:
    """Removes exclusions."""

    def remove() -> list[str]:
        for filter in filters:
            core.subscriptions.unexclude(filter)
        return filters

    await _change(core, UNEXCLUDE, filters, remove)


async def probe(core: Core) -> None:
    """Performs an operation that changes nothing and is acknowledged."""
    body = encode_filters([PROBE_FILTER])
    await core.wait_for_space(len(body) + HEADER_BYTES)
    await core.send_acknowledged(UNEXCLUDE, (body,), OPERATIONS[UNEXCLUDE], PROBE_FILTER)


async def _change_or_revert(
    core: Core, op: int, filters: list[str], add: Callable[[], list[str]], revert: Callable[[], list[str]]
) -> None:
    """As :func:`_change`. A refusal, a timeout or a cancellation reverts what this call has added."""
    try:
        await _change(core, op, filters, add)
    except (asyncio.CancelledError, TimedOutError):
        # the broker can have performed it, or will
        unused = [filter for filter in revert() if not core.subscriptions.includes(op, filter)]
        _forget(core, UNSUBSCRIBE if op == SUBSCRIBE else UNEXCLUDE, unused)
        raise
    except Error:
        revert()
        raise


def forget_subscription(core: Core, filters: list[str]) -> None:
    """Unsubscribes without waiting for the outcome."""
    _forget(core, UNSUBSCRIBE, filters)


def _forget(core: Core, op: int, filters: list[str]) -> None:
    if filters and core.send_queue.transport is not None:
        core.send_with_callback(op, (encode_filters(filters),), lambda code: None)


async def _change(core: Core, op: int, filters: list[str], update: Callable[[], list[str]]) -> None:
    """Changes the subscription state, and the broker's now or with the next connection.

    ``update`` changes the state and returns the filters to send; it runs right before they are queued, so
    that the state cannot differ from what the broker receives.
    """
    body = encode_filters(filters)
    core.check_size(0, len(body))
    if not filters:
        return  # on the wire that would be the empty filter
    try:
        await core.wait_for_space(len(body) + HEADER_BYTES)
    except DisconnectedError:
        if core.settings.reconnect is None:
            raise
        update()
        return
    sent = update()
    if not sent:
        return
    if len(sent) != len(filters):
        body = encode_filters(sent)
    try:
        await core.send_acknowledged(op, (body,), OPERATIONS[op], _list(sent))
    except DisconnectedError:
        # the change is restored with the next connection
        if core.settings.reconnect is None or core.closing or core.ended is not None:
            raise


def _list(filters: list[str]) -> str:
    listed = ", ".join(filters[:LISTED_FILTERS])
    more = len(filters) - LISTED_FILTERS
    return f"{listed} and {more} more filters" if more > 0 else listed


def restore(core: Core, operations: list[tuple[int, list[str]]]) -> None:
    """Requests filters again that an earlier connection had."""
    for op, filters in operations:
        _restore(core, op, filters)


def _restore(core: Core, op: int, filters: list[str]) -> None:
    def on_ack(code: int) -> None:
        if code == OK:
            return
        # other codes apply to all filters of the frame, for example a limit
        if code in (ACCESS_DENIED, BAD_DATA) and len(filters) > 1:
            middle = len(filters) // 2
            for half in (filters[:middle], filters[middle:]):
                in_use = [filter for filter in half if core.subscriptions.includes(op, filter)]
                if in_use:
                    _restore(core, op, in_use)
            return
        LOG.warning(
            "cannot restore topic filters client=%r operation=%r filter=%r count=%d code=0x%02x",
            core.name,
            OPERATIONS[op],
            filters[0],
            len(filters),
            code,
        )

    core.send_with_callback(op, (encode_filters(filters),), on_ack)
