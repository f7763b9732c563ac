"""From a world to English: many ways to say each event, joined into a short story."""

from __future__ import annotations

import random
import zlib

from groundup.storyworld.lexicon import PLACES, SINGULAR, article, number_word
from groundup.storyworld.world import Event, World, simulate

OPENINGS = (
    "Once upon a time there were {count} friends called {names}.",
    "{names} were good friends.",
    "This is a story about {names}.",
    "One day {names} met to play.",
    "{names} lived in a small town.",
    "There once were {count} children, {names}.",
    "It was a sunny day for {names}.",
)
CLOSINGS = (
    "It was a good day.", "Everyone was happy.", "Then they all went home.", "They laughed and sang.",
    "The sun went down.", "What a day it was!", "And that was the end of the day.",
)  # fmt: skip
TELLINGS = 100
RETELLINGS = (
    "At home {who} told it all again.",
    "{who} wrote it down in a letter.",
    "The next day {who} told a neighbour:",
    "{who} never forgot that day.",
)
CONNECTORS = (
    "Then",
    "After that",
    "Later",
    "Soon",
    "Next",
    "A little later",
    "After lunch",
    "In the afternoon",
)

SENTENCES: dict[str, tuple[str, ...]] = {
    "was": ("{who} was {at}.", "{who} was playing {at}.", "{who} sat {at}."),
    "had": ("{who} had {thing}.", "{who} had brought {thing}.", "{who} owned {thing}."),
    "counted": ("{who} had {many}.", "{who} had collected {many}.", "{who} carried {many} in a bag."),
    "move": ("{who} went {to_place}.", "{who} walked {to_place}.", "{who} ran {to_place}."),
    "find": ("{who} found {thing}.", "{who} came across {thing}.", "{who} found {thing} under a tree."),
    "give": ("{who} gave {the} to {to}.", "{who} handed {the} to {to}.", "{who} gave {to} {the}."),
    "gain": ("{who} found one more {one}.", "{who} got one more {one}."),
    "lose": ("{who} lost one {one}.", "{who} gave one {one} to a bird."),
    "wish": ("{who} wished for {wish}.", "{who} dreamed of {wish}.", "{who} wanted to have {wish}."),
}


def join_names(names: tuple[str, ...] | list[str]) -> str:
    """``["A", "B", "C"]`` -> ``"A, B and C"``."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def thing_phrase(world: World, thing: str, definite: bool) -> str:
    """``"a red ball"`` or ``"the red ball"``."""
    colour = world.colours[thing]
    return f"the {colour} {thing}" if definite else f"{article(colour)} {colour} {thing}"


def _slots(world: World, event: Event) -> dict[str, str]:
    slots = {"who": event.who, "to": event.to}
    match event.kind:
        case "was" | "move":
            slots["at"] = PLACES[event.what]
            slots["to_place"] = f"to the {event.what}"
        case "had" | "find" | "give":
            slots["thing"] = thing_phrase(world, event.what, definite=False)
            slots["the"] = thing_phrase(world, event.what, definite=True)
        case "wish":
            slots["wish"] = f"{article(event.what)} {event.what}"
        case _:
            slots["one"] = SINGULAR[event.what]
            slots["many"] = number_word(event.count, event.what)
    return slots


def say(rng: random.Random, world: World, event: Event) -> str:
    """One sentence that tells an event."""
    return rng.choice(SENTENCES[event.kind]).format(**_slots(world, event))


def narrate(rng: random.Random, world: World) -> str:
    """The story of a world: an opening, its setting, its events in order, sometimes a closing line."""
    count = ("zero", "one", "two", "three", "four", "five")[len(world.people)]
    sentences = [rng.choice(OPENINGS).format(count=count, names=join_names(world.people)), *_body(rng, world)]
    if rng.random() < 0.3:
        sentences.append(rng.choice(CLOSINGS))
    return " ".join(sentences)


def retell(rng: random.Random, world: World) -> str:
    """The same story told a second time by one of its people, in other words and without its frame."""
    return f"{rng.choice(RETELLINGS).format(who=rng.choice(world.people))} {' '.join(_body(rng, world))}"


def _body(rng: random.Random, world: World) -> list[str]:
    sentences = [say(rng, world, event) for event in rng.sample(world.setting, len(world.setting))]
    for event in world.events:
        sentence = say(rng, world, event)
        if rng.random() < 0.35:
            sentence = f"{rng.choice(CONNECTORS)} {sentence}"
        sentences.append(sentence)
    return sentences


def tell(rng: random.Random, split: str = "train") -> tuple[World, str]:
    """Draw worlds until one has a story that belongs to the split's side, and return both.

    One story in sixteen, by its checksum, is kept for tests and never told in training: the two sides cannot meet.
    """
    while True:
        world = simulate(rng, split)
        story = narrate_for(rng, world, split)
        if story is not None:
            return world, story


def narrate_for(rng: random.Random, world: World, split: str) -> str | None:
    """A telling of this world that belongs to the split's side; None where many tellings all fell on the other."""
    for _ in range(TELLINGS):
        story = narrate(rng, world)
        if (zlib.crc32(story.encode()) % 16 == 0) == (split not in ("train", "easy")):
            return story
    return None
