"""All conversations of protocol/conformance with the asyncio client, whole and byte by byte, in virtual
time.
"""

from __future__ import annotations

import pytest
from conversation_runner import Runner
from data import Conversation, conversations
from virtual_loop import VirtualLoop


@pytest.mark.parametrize("byte_by_byte", [False, True], ids=["whole", "bytes"])
@pytest.mark.parametrize("conversation", conversations(), ids=lambda c: f"{c.file[:-4]}: {c.name}")
def test_conversation(conversation: Conversation, byte_by_byte: bool) -> None:
    cut_at, more = 0, True
    while more:
        loop = VirtualLoop()
        try:
            runner = Runner(loop, conversation, byte_by_byte, cut_at)
            loop.run_until_complete(runner.run())
        finally:
            loop.close()
        cut_at, more = cut_at + 1, runner.more_cuts
