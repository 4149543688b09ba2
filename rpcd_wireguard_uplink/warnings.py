"""What ails the service now, as sentences for the router's owner: one book for the process.

A topic has one sentence at most. Whoever set it clears it when the fault is mended. Topics of one
part share a prefix ("mtu wgup_a"), so that the part can clear all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager

from .errors import UplinkError


class Warnings(dict[str, str]):
    """Sentences by topic, in the order in which they came."""

    def set(self, topic: str, sentence: str) -> None:
        """Warn of one topic; '' clears it."""
        if sentence:
            self[topic] = sentence
        else:
            self.clear_topic(topic)

    def clear_topic(self, topic: str) -> None:
        """The fault is mended (or never was)."""
        self.pop(topic, None)

    def keep(self, prefix: str, names: Container[str]) -> None:
        """Of the topics that begin with `prefix`, clear all that do not end in one of the names."""
        for topic in [topic for topic in list(self) if topic.startswith(prefix)]:
            if topic.removeprefix(prefix) not in names:
                del self[topic]

    def replace(self, prefix: str, sentences: Mapping[str, str]) -> None:
        """Warn of exactly these among the topics that begin with `prefix`."""
        self.keep(prefix, sentences)
        for name, sentence in sentences.items():
            self.set(f"{prefix}{name}", sentence)

    @contextmanager
    def catch(
        self, topic: str, *kinds: type[Exception], sentence: Callable[[Exception], str] = str
    ) -> Iterator[None]:
        """Turn an expected failure of the block into a warning; clear it where the block succeeds.

        `kinds` are UplinkError unless given; `sentence` makes a sentence of the error.
        """
        expected = kinds or (UplinkError,)
        try:
            yield
        except expected as error:
            self.set(topic, sentence(error))
        else:
            self.clear_topic(topic)

    def all(self) -> list[str]:
        """Every sentence once, oldest topic first."""
        return list(dict.fromkeys(self.values()))
