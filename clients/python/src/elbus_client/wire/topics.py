"""Topics and filters, section 6. Owns the matching; knows no options."""

from __future__ import annotations


def matches(filter: str, topic: str) -> bool:
    """Returns whether a filter matches a topic: ``+`` is one segment, ``#`` all remaining ones, at least one.

    >>> matches("a/+", "a/b"), matches("a/#", "a"), matches("a/#", "a/")
    (True, False, True)
    """
    if "+" not in filter and "#" not in filter:
        return filter == topic
    wanted, segments = filter.split("/"), topic.split("/")
    for index, segment in enumerate(wanted):
        if segment == "#":
            return len(segments) > index
        if index >= len(segments) or (segment != "+" and segment != segments[index]):
            return False
    return len(wanted) == len(segments)
