"""Filters with options, section 6. Owns their syntax; never matches a topic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from elbus_client.errors import ArgumentError

MAX_GROUP_BYTES = 255
MAX_KEY_LEVELS = 32
MAX_INTERVAL_MS = 86_400_000

_OPTIONS = ("$share", "$key", "$latest", "$every", "$lossy")


class SubscriptionError(ValueError):
    """A filter with options is malformed; ``args[0]`` is what is wrong: group, levels, interval, order,
    no-filter.
    """


@dataclass(frozen=True)
class Options:
    """Options of a subscription; the broker applies them.

    - ``share="workers"``: each publication goes to one member of the group.
    - ``key=("workers", 2)``: publications whose topics have the same first 2 segments go to the same member.
    - ``latest=True``: the newest publication of each topic; a newer one replaces the pending one.
    - ``every=1.5``: at most one publication of each topic every 1.5 s, the newest.
    - ``lossy=True``: what the queue has room for; the rest is dropped.

    At most one of ``share`` and ``key``, and at most one of the others.

    >>> Options(share="workers", latest=True).prefix()
    '$share/workers/$latest/'
    """

    share: str | None = None
    key: tuple[str, int] | None = None
    latest: bool = False
    every: float | None = None
    lossy: bool = False

    def __post_init__(self) -> None:
        if self.share is not None and self.key is not None:
            raise ArgumentError("options: share and key exclude each other")
        if self.share is not None:
            _check_group(self.share)
        if self.key is not None:
            key = cast("object", self.key)
            if not isinstance(key, tuple) or len(cast("tuple[object, ...]", key)) != 2:
                raise ArgumentError(f"options: key must be a group and a number of levels, not {key!r}")
            _check_group(self.key[0])
            levels = cast("object", self.key[1])
            if isinstance(levels, bool) or not isinstance(levels, int) or not 1 <= levels <= MAX_KEY_LEVELS:
                raise ArgumentError(
                    f"options: the levels of key must be 1 to {MAX_KEY_LEVELS}, not {levels!r}"
                )
        if sum((self.latest is True, self.every is not None, self.lossy is True)) > 1:
            raise ArgumentError("options: latest, every and lossy exclude each other")
        for name, flag in (("latest", self.latest), ("lossy", self.lossy)):
            if flag is not True and flag is not False:
                raise ArgumentError(f"options: {name} must be True or False, not {flag!r}")
        if self.every is not None:
            self._millis(self.every)

    @staticmethod
    def _millis(every: object) -> int:
        valid = isinstance(every, (int, float)) and not isinstance(every, bool)
        if not valid or not 0.001 <= every <= MAX_INTERVAL_MS / 1000:  # type: ignore[operator]
            raise ArgumentError(
                f"options: every must be 0.001 to {MAX_INTERVAL_MS // 1000} seconds, not {every!r}"
            )
        return round(every * 1000)  # type: ignore[operator]

    def names(self) -> list[str]:
        """Returns the names of the options that are set, as the broker's ``features`` has them."""
        named = (
            ("share", self.share is not None),
            ("key", self.key is not None),
            ("latest", self.latest),
            ("every", self.every is not None),
            ("lossy", self.lossy),
        )
        return [name for name, is_set in named if is_set]

    def prefix(self) -> str:
        """Returns the options as they precede a filter."""
        text = ""
        if self.share is not None:
            text += f"$share/{self.share}/"
        if self.key is not None:
            text += f"$key/{self.key[0]}/{self.key[1]}/"
        if self.latest:
            text += "$latest/"
        if self.every is not None:
            text += f"$every/{self._millis(self.every)}/"
        if self.lossy:
            text += "$lossy/"
        return text


def _check_group(group: object) -> None:
    if not isinstance(group, str):
        raise ArgumentError(f"options: a group must be a str, not {type(group).__name__}")
    length = len(group.encode("utf-8", "replace"))
    if not 1 <= length <= MAX_GROUP_BYTES or any(char in group for char in "/+#\0"):
        raise ArgumentError(
            f"options: the group {group!r} must have 1 to {MAX_GROUP_BYTES} bytes and no '/', '+' or '#'"
        )


@dataclass(frozen=True)
class Parsed:
    """A filter with options in its parts."""

    filter: str
    share: str | None = None
    key: tuple[str, int] | None = None
    latest: bool = False
    every_ms: int | None = None
    lossy: bool = False


def has_options(filter: str) -> bool:
    """Returns whether a filter begins with an option, well-formed or not."""
    return filter.startswith("$") and filter.partition("/")[0] in _OPTIONS


def _number(text: str, maximum: int) -> int | None:
    if not text.isascii() or not text.isdigit() or text.startswith("0") or len(text) > 9:
        return None
    return int(text) if int(text) <= maximum else None


def parse(text: str) -> Parsed:
    """Parses a filter with options; raises :class:`SubscriptionError`."""
    if not has_options(text):
        return Parsed(text)
    share: str | None = None
    key: tuple[str, int] | None = None
    latest, lossy, every = False, False, None
    first, slash, rest = text.partition("/")
    if first in ("$share", "$key"):
        group, slash, rest = rest.partition("/")
        if not 1 <= len(group.encode("utf-8", "replace")) <= MAX_GROUP_BYTES or "+" in group or "#" in group:
            raise SubscriptionError("group")
        if first == "$share":
            share = group
        else:
            levels, slash, rest = rest.partition("/")
            number = _number(levels, MAX_KEY_LEVELS)
            if number is None:
                raise SubscriptionError("levels")
            key = (group, number)
        first, more, behind = rest.partition("/")
        if first in ("$latest", "$every", "$lossy") and slash:
            slash, rest = more, behind
        else:
            first = ""
    if first == "$latest":
        latest = True
    elif first == "$lossy":
        lossy = True
    elif first == "$every":
        interval, slash, rest = rest.partition("/")
        every = _number(interval, MAX_INTERVAL_MS)
        if every is None:
            raise SubscriptionError("interval")
    if not slash or not rest:
        raise SubscriptionError("no-filter")
    if has_options(rest):
        raise SubscriptionError("order")
    return Parsed(rest, share, key, latest, every, lossy)


def topic_filter(text: str) -> str:
    """Returns the part of a filter behind its options; a malformed one as it is, which the broker refuses."""
    try:
        return parse(text).filter
    except SubscriptionError:
        return text


def is_shared(text: str) -> bool:
    """Returns whether a group shares the publications of a filter."""
    try:
        parsed = parse(text)
    except SubscriptionError:
        return False
    return parsed.share is not None or parsed.key is not None


def known_text(filter: str) -> str:
    """Returns the text by which the broker knows a filter: what follows a ``#`` is left out."""
    segments = filter.split("/")
    return "/".join(segments[: segments.index("#") + 1]) if "#" in segments else filter
