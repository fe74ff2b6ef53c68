"""Keeps a conversation with a service going, for as long as the agent lives."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from lab.site import AgentSite, ConnectorSite
from lab.voices import Listener, Speaker, Voice
from p2pnet.core.peer.session import Session
from p2pnet.core.peer.stream import StreamState
from p2pnet.node.agent import AgentNode
from p2pnet.node.base import Node

AGAIN = 0.5  # seconds after a failure


class Conversation:
    """One stream, seen from both ends.

    :ivar began: when the agent asked for it.
    :ivar connector: where its other end is, and `node` what runs there; None before it is known.
    """

    def __init__(self, speaker: Speaker, began: float) -> None:
        self.speaker = speaker
        self.began = began
        self.transport: Any = None
        self.listener: Listener | None = None
        self.connector: ConnectorSite | None = None
        self.node: Node | None = None

    @property
    def session(self) -> Session | None:
        """The agent's end of the session that carries it."""
        return self.transport.stream.session if self.transport is not None else None

    @property
    def is_answered(self) -> bool:
        """Whether the service accepted it."""
        return self.transport is not None and self.transport.stream.state is StreamState.OPEN

    def join(self, listener: Listener, site: ConnectorSite) -> bool:
        """The other end has come about. False if it had before."""
        if self.listener is not None:
            return False
        self.listener, self.connector, self.node = listener, site, site.node
        return True

    @property
    def lingers(self) -> bool:
        """Whether one end has ended and the other, whose process lives, has not."""
        return (
            self.listener is not None
            and self.listener.why is None
            and self.connector is not None
            and self.connector.node is self.node
        )

    def verify(self) -> str:
        """What is wrong with it, "" for nothing."""
        listener, speaker = self.listener, self.speaker
        for voice in filter(None, (speaker, listener)):
            if voice.wrong:
                return f"the {'agent' if voice.from_agent else 'connector'} {voice.wrong}"
        if not speaker.is_done:
            return ""
        if listener is None or not listener.is_done:
            return "it ended for the agent alone"
        if (speaker.said, listener.said) != (listener.heard, speaker.heard):
            return f"said {speaker.said}, {listener.said}, heard {listener.heard}, {speaker.heard}"
        return ""


class Talker:
    """An agent that uses a service.

    :param conversations: takes each, at its number.
    :param broke: called with (self, conversation) when one failed.
    :ivar current: the one that is under way.
    """

    def __init__(
        self,
        agent: AgentSite,
        service: str,
        conversations: list[Conversation],
        broke: Callable[[Talker, Conversation], Any],
        draw: random.Random,
    ) -> None:
        self.agent = agent
        self.service = service
        self.current: Conversation | None = None
        self._conversations = conversations
        self._broke = broke
        self._draw = draw
        self._heard_at = (0.0, 0.0)  # of the conversations that are over
        self._closing = False

    def __str__(self) -> str:
        return f"{self.agent.name} with {self.service}"

    # -- conversations ---------------------------------------------------------------------------

    def start(self) -> None:
        """The agent runs, perhaps again: begin to talk."""
        self.current = None
        if self.agent.node is not None and not self._closing:
            now = self.agent.clock.seconds()
            self._heard_at = now, now
            self._open()

    def _open(self) -> None:
        node = self.agent.node
        if self._closing or not isinstance(node, AgentNode):
            return
        clock = self.agent.clock
        speaker = Speaker(clock, self._draw, len(self._conversations))
        speaker.pauses = self.agent.pauses
        conversation = self.current = Conversation(speaker, clock.seconds())
        self._conversations.append(conversation)
        speaker.over = lambda _: self._over(conversation)
        if self._draw.random() < 0.5:  # and write before there is an answer
            conversation.transport = node.open(self.service)
            self._connected(conversation.transport, conversation)
        else:
            node.connect(self.service).addCallbacks(
                lambda transport: self._connected(transport, conversation),
                speaker.connectionLost,
            )
        clock.callLater(self._draw.choice((4.0, 15.0, 60.0)), self._end, conversation)

    def _connected(self, transport: Any, conversation: Conversation) -> None:
        conversation.transport = transport
        transport.connect(conversation.speaker)
        conversation.speaker.begin()
        if self._closing:
            conversation.speaker.finish()

    def _end(self, conversation: Conversation) -> None:
        if conversation.transport is not None:
            conversation.speaker.finish()

    def _over(self, conversation: Conversation) -> None:
        """It ended, or failed; there is always another."""
        if self.current is conversation:
            self._heard_at = self.heard_at
            self.current = None
        speaker = conversation.speaker
        if not speaker.is_done:
            self._broke(self, conversation)
        if speaker.is_done or speaker.heard:  # the next one may reach somebody else
            now = self.agent.clock.seconds()
            self._heard_at = now, now
        if self.agent.node is not None:
            self.agent.clock.callLater(AGAIN, self._open)

    # -- for those who look on -------------------------------------------------------------------

    @property
    def heard_at(self) -> tuple[float, float]:
        """When the agent, and when the service, last heard something."""
        voices: list[Voice | None] = [None, None]
        if self.current is not None:
            voices = [self.current.speaker, self.current.listener]
        heard = [voice.heard_at if voice is not None else 0.0 for voice in voices]
        return max(self._heard_at[0], heard[0]), max(self._heard_at[1], heard[1])

    def finish(self) -> None:
        """Say nothing more, and begin nothing new."""
        self._closing = True
        if self.current is not None:
            self._end(self.current)

    @property
    def is_over(self) -> bool:
        """Whether the last conversation has ended."""
        return self.current is None
