"""The simulator: people, places, coloured objects, counts, wishes, and the events that change them.

A :class:`World` holds the whole history of each fact, so that the true answer to any question about the story is
read from the state and never from the text.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from groundup.storyworld.lexicon import (
    COLOURS,
    COUNTABLES,
    NAMES,
    OBJECTS,
    PLACES,
    UNSEEN_NAMES,
    is_unseen_combination,
)

SPLITS = ("iid", "unseen_names", "unseen_combinations", "longer", "unseen_phrasing")
"""The held-out test splits. Training uses the world shapes "train" and "easy" and no others."""


@dataclass(frozen=True)
class Shape:
    """How big a world is, and from which words it is made. Ranges are inclusive."""

    people: tuple[int, int] = (3, 4)
    objects: tuple[int, int] = (2, 3)
    events: tuple[int, int] = (2, 5)
    names: tuple[str, ...] = NAMES
    unseen_combination: bool = False


SHAPES = {
    "train": Shape(people=(2, 4), objects=(1, 3), events=(1, 5)),
    "easy": Shape(people=(2, 2), objects=(1, 2), events=(0, 2)),
    "iid": Shape(),
    "unseen_names": Shape(names=UNSEEN_NAMES),
    "unseen_combinations": Shape(unseen_combination=True),
    "longer": Shape(people=(4, 5), objects=(3, 4), events=(6, 8)),
    "unseen_phrasing": Shape(),
}
TRAINING_EVENTS = SHAPES["train"].events[1]


@dataclass(frozen=True)
class Event:
    """One thing that happens. ``kind`` is was, had, counted, move, find, give, gain, lose or wish.

    ``who`` acts; ``what`` is a place, an object or a countable noun; ``to`` receives; ``count`` is how many.
    """

    kind: str
    who: str
    what: str = ""
    to: str = ""
    count: int = 0


@dataclass
class World:
    """The state after all events, with the history of every fact."""

    people: tuple[str, ...]
    colours: dict[str, str]
    """object -> colour, for every object of the world"""
    places: dict[str, list[str]] = field(default_factory=dict)
    """person -> the places they were told to be, oldest first"""
    holders: dict[str, list[str]] = field(default_factory=dict)
    """object -> the people who held it, oldest first"""
    counts: dict[str, tuple[str, int]] = field(default_factory=dict)
    """person -> (countable noun, how many they have now)"""
    wishes: dict[str, str] = field(default_factory=dict)
    """person -> the object wished for"""
    setting: list[Event] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def apply(self, event: Event) -> None:
        """Change the state by one event."""
        match event.kind:
            case "was" | "move":
                self.places.setdefault(event.who, []).append(event.what)
            case "had" | "find":
                self.holders.setdefault(event.what, []).append(event.who)
            case "give":
                self.holders[event.what].append(event.to)
            case "counted":
                self.counts[event.who] = (event.what, event.count)
            case "gain" | "lose":
                noun, count = self.counts[event.who]
                self.counts[event.who] = (
                    noun,
                    count + (event.count if event.kind == "gain" else -event.count),
                )
            case "wish":
                self.wishes[event.who] = event.what

    def told_objects(self) -> list[str]:
        """The objects that the story mentions as somebody's, in the order of the world."""
        return [thing for thing in self.colours if thing in self.holders]


def _coloured_objects(rng: random.Random, shape: Shape, count: int) -> dict[str, str]:
    things = rng.sample(OBJECTS, count)
    colours: dict[str, str] = {}
    for index, thing in enumerate(things):
        want_unseen = shape.unseen_combination and index == 0
        allowed = [c for c in COLOURS if is_unseen_combination(c, thing) == want_unseen and c not in colours.values()]
        colours[thing] = rng.choice(allowed)
    return colours


def _setting(rng: random.Random, world: World, things: list[str]) -> list[Event]:
    """The facts that hold when the story begins: where some are, what some have, how many some have."""
    people = list(world.people)
    events = [
        Event("was", person, rng.choice(tuple(PLACES)))
        for person in rng.sample(people, rng.randint(1, min(3, len(people))))
    ]
    events += [Event("had", rng.choice(people), thing) for thing in things]
    if rng.random() < 0.55:
        noun = rng.choice(COUNTABLES)
        owners = rng.sample(people, 2 if rng.random() < 0.75 else 1)
        numbers = rng.sample(range(2, 9), len(owners))
        events += [Event("counted", who, noun, count=n) for who, n in zip(owners, numbers, strict=True)]
    rng.shuffle(events)
    return events


def _next_event(rng: random.Random, world: World, hidden: list[str], last: bool) -> Event:
    """One event that is possible now. An object not yet told (``hidden``) is found before the story ends."""
    person = rng.choice(world.people)
    if hidden and (last or rng.random() < 0.4):
        return Event("find", person, hidden.pop())
    held = world.told_objects()
    draw = rng.random()
    if draw < 0.40 or not held:
        here = world.places.get(person, [""])[-1]
        return Event("move", person, rng.choice([place for place in PLACES if place != here]))
    if draw < 0.75:
        thing = rng.choice(held)
        giver = world.holders[thing][-1]
        return Event("give", giver, thing, to=rng.choice([p for p in world.people if p != giver]))
    if draw < 0.88 and world.counts:
        who = rng.choice(list(world.counts))
        noun, count = world.counts[who]
        others = [c for p, (_, c) in world.counts.items() if p != who]
        gain = count + 1 not in others and (count < 9) and rng.random() < 0.5
        if gain or count - 1 not in others:
            return Event("gain" if gain else "lose", who, noun, count=1)
    free = [p for p in world.people if p not in world.wishes]
    if free:
        absent = [t for t in OBJECTS if t not in world.colours and t not in world.wishes.values()]
        return Event("wish", rng.choice(free), rng.choice(absent))
    here = world.places.get(person, [""])[-1]
    return Event("move", person, rng.choice([place for place in PLACES if place != here]))


def simulate(rng: random.Random, split: str = "train") -> World:
    """Draw one world of a split's shape (``"train"`` or one of :data:`SPLITS`) and let it run.

    Args:
        rng: the only source of randomness.
        split: a key of :data:`SHAPES`.
    """
    shape = SHAPES[split]
    people = tuple(rng.sample(shape.names, rng.randint(*shape.people)))
    colours = _coloured_objects(rng, shape, rng.randint(*shape.objects))
    world = World(people, colours)
    things = list(colours)
    count = rng.randint(*shape.events)
    hidden = things[1:] if len(things) > 1 and count > 1 and rng.random() < 0.5 else []
    hidden = hidden[: max(count - 1, 0)]
    world.setting = _setting(rng, world, [thing for thing in things if thing not in hidden])
    for event in world.setting:
        world.apply(event)
    for index in range(count):
        event = _next_event(rng, world, hidden, last=count - index <= len(hidden))
        world.events.append(event)
        world.apply(event)
    return world
