"""Instructions to tell a story with given people, things and events, and the check that a story meets them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from groundup.storyworld.narrate import join_names, tell, thing_phrase
from groundup.storyworld.world import Event

OPENERS = (
    "Tell me a story about {names}",
    "Write a short story about {names}",
    "I want a story about {names}",
)


@dataclass(frozen=True)
class TaleRequest:
    """An instruction and one story that meets it."""

    text: str
    story: str
    people: tuple[str, ...]
    things: tuple[str, ...]
    event: Event | None


def _clause(event: Event) -> str:
    match event.kind:
        case "move":
            return f"{event.who} goes to the {event.what}"
        case "give":
            return f"{event.who} gives the {event.what} to {event.to}"
        case "find":
            return f"{event.who} finds the {event.what}"
    raise ValueError(f"no clause for an event of kind {event.kind!r}")


def make_tale_request(rng: random.Random, split: str = "train") -> TaleRequest:
    """An instruction drawn from a world: its people, one of its things, sometimes one of its events."""
    world, story = tell(rng, split)
    told = world.told_objects()
    things = (rng.choice(told),) if told else ()
    events = [event for event in world.events if event.kind in ("move", "give", "find")]
    event = rng.choice(events) if events and rng.random() < 0.6 else None
    text = rng.choice(OPENERS).format(names=join_names(world.people))
    if things:
        text += f", with {thing_phrase(world, things[0], definite=False)}"
    if event:
        text += f", in which {_clause(event)}"
    return TaleRequest(f"{text}.", story, world.people, things, event)


def tale_reward(request: TaleRequest, text: str) -> float:
    """The share of the instruction's demands that a story meets, in [0, 1]: people, things, the event's words."""
    demands = [person in text for person in request.people] + [thing in text for thing in request.things]
    if request.event:
        event = request.event
        sentences = [s for s in text.split(".") if event.who in s and event.what in s]
        demands.append(any(event.to in sentence for sentence in sentences))
    return sum(demands) / len(demands)
