"""Questions about a world, with the true answer read from its state, in several phrasings.

A question has a *fact*: the canonical value that a right answer must name. ``answer_sentence`` puts a fact into the
full short sentence that a helpful assistant would say.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

from groundup.storyworld.lexicon import COLOURS, COUNTABLES, NUMBERS, OBJECTS, PLACES, article, number_word
from groundup.storyworld.narrate import narrate_for
from groundup.storyworld.world import World, simulate

KINDS = ("where", "who", "count", "colour", "order", "yes_no", "compare", "wish")
UNKNOWN = "unknown"
"""The kind of a question that the story does not answer."""
ABSTENTION = "The story does not say."

PHRASINGS: dict[str, tuple[str, ...]] = {
    "where": ("Where is {who}?", "Where is {who} now?", "In which place is {who}?"),
    "who": ("Who has the {thing}?", "Who has the {thing} now?", "Who is holding the {thing}?"),
    "count": ("How many {noun} does {who} have?", "How many {noun} has {who} got?"),
    "colour": ("What colour is the {thing}?", "Which colour does the {thing} have?"),
    "order_holder": ("Who had the {thing} first?", "Who was the first to have the {thing}?"),
    "order_place": ("Where was {who} first?", "Where was {who} at the beginning?"),
    "order_last_holder": ("Who got the {thing} last?", "Who was the last to get the {thing}?"),
    "order_last_place": ("Where did {who} go last?", "What was the last place {who} went to?"),
    "yes_no_holder": ("Does {who} have the {thing}?", "Is the {thing} with {who}?"),
    "yes_no_place": ("Is {who} {at}?", "Is it true that {who} is {at}?"),
    "compare_more": ("Who has more {noun}, {who} or {other}?",),
    "compare_fewer": ("Who has fewer {noun}, {who} or {other}?",),
    "wish": ("What did {who} wish for?", "What does {who} want?"),
}
UNSEEN_PHRASINGS: dict[str, tuple[str, ...]] = {
    "where": ("Can you tell me where {who} is?", "Do you know where {who} is now?"),
    "who": ("Can you tell me who has the {thing}?", "The {thing}: who has it now?"),
    "count": ("Can you tell me how many {noun} {who} has?", "What is the number of {noun} that {who} has?"),
    "colour": ("Can you tell me the colour of the {thing}?", "The {thing}: what colour is it?"),
    "order_holder": ("Which friend had the {thing} first?", "At first, who had the {thing}?"),
    "order_place": ("In which place was {who} first?", "At first, where was {who}?"),
    "order_last_holder": ("Which friend got the {thing} last?", "At the end, who got the {thing}?"),
    "order_last_place": ("To which place did {who} go last?", "At the end, where did {who} go?"),
    "yes_no_holder": ("Tell me, does {who} have the {thing}?", "Has {who} got the {thing}?"),
    "yes_no_place": ("Tell me, is {who} {at}?", "Is {who} now {at}?"),
    "compare_more": ("Who has got more {noun}: {other} or {who}?",),
    "compare_fewer": ("Who has got fewer {noun}: {other} or {who}?",),
    "wish": ("Can you tell me what {who} wished for?", "Which thing did {who} wish for?"),
}


@dataclass(frozen=True)
class Ask:
    """A question about a world before it is put into words: its kind, its form, its slots and the true fact."""

    kind: str
    form: str
    slots: tuple[tuple[str, str], ...]
    fact: str
    candidates: tuple[str, ...]
    """Every value that an answer of this form could name; the fact is one of them unless the kind is unknown."""

    def slot(self, name: str) -> str:
        return dict(self.slots)[name]

    @property
    def subject(self) -> tuple[str, str]:
        """What is asked about: questions of one subject have one answer, so a chat asks only one of them."""
        slots = dict(self.slots)
        about = {"where": "place", "yes_no_place": "place", "order_last_place": "place", "who": "holder"}
        about |= {"yes_no_holder": "holder", "order_last_holder": "holder", "compare_more": "compare"}
        name = about.get(self.form, "compare" if self.form == "compare_fewer" else self.form)
        return name, slots["thing"] if "thing" in slots else slots["noun" if name == "compare" else "who"]

    def words(self, rng: random.Random, unseen: bool = False) -> str:
        """The question in one of its phrasings; ``unseen`` picks one that training never uses."""
        table = UNSEEN_PHRASINGS if unseen else PHRASINGS
        slots = dict(self.slots)
        if "place" in slots:
            slots["at"] = PLACES[slots["place"]]
        return rng.choice(table[self.form]).format(**slots)


def _ask(kind: str, form: str, fact: str, candidates: tuple[str, ...], **slots: str) -> Ask:
    return Ask(kind, form, tuple(sorted(slots.items())), fact, candidates)


def _yes_no(rng: random.Random, form: str, slot: str, true: str, other: str, **slots: str) -> Ask:
    """A yes/no question about the slot's true value or another one. ``instead`` is what the answer "no" names."""
    truth = rng.random() < 0.5
    asked, instead = (true, other) if truth else (other, true)
    return _ask("yes_no", form, "yes" if truth else "no", ("yes", "no"), **{slot: asked, "instead": instead}, **slots)


def answerable(world: World, rng: random.Random) -> list[Ask]:
    """Every question that the story of this world answers (yes/no questions: one true or false one per fact)."""
    people, places, asks = world.people, tuple(PLACES), []
    for who, been in world.places.items():
        asks.append(_ask("where", "where", been[-1], places, who=who))
        if len(been) > 1:
            asks.append(_ask("order", "order_place", been[0], places, who=who))
            asks.append(_ask("order", "order_last_place", been[-1], places, who=who))
        elsewhere = rng.choice([place for place in PLACES if place != been[-1]])
        asks.append(_yes_no(rng, "yes_no_place", "place", been[-1], elsewhere, who=who))
    for thing, had in world.holders.items():
        asks.append(_ask("who", "who", had[-1], people, thing=thing))
        asks.append(_ask("colour", "colour", world.colours[thing], COLOURS, thing=thing))
        if len(had) > 1:
            asks.append(_ask("order", "order_holder", had[0], people, thing=thing))
            asks.append(_ask("order", "order_last_holder", had[-1], people, thing=thing))
        other = rng.choice([person for person in people if person != had[-1]])
        asks.append(_yes_no(rng, "yes_no_holder", "who", had[-1], other, thing=thing))
    for who, (noun, count) in world.counts.items():
        asks.append(_ask("count", "count", NUMBERS[count], NUMBERS, who=who, noun=noun))
    if len(world.counts) == 2:
        (a, (noun, x)), (b, (_, y)) = rng.sample(sorted(world.counts.items()), 2)
        more, fewer = (a, b) if x > y else (b, a)
        slots = {"who": a, "other": b, "noun": noun, "counted": number_word(x, noun), "other_counted": NUMBERS[y]}
        asks.append(_ask("compare", "compare_more", more, (a, b), **slots))
        asks.append(_ask("compare", "compare_fewer", fewer, (a, b), **slots))
    for who, thing in world.wishes.items():
        asks.append(_ask("wish", "wish", thing, OBJECTS, who=who))
    return asks


def unanswerable(world: World) -> list[Ask]:
    """Questions about this world's people and things that its story leaves open."""
    people, places, asks = world.people, tuple(PLACES), []
    for who in people:
        if who not in world.places:
            asks.append(_ask(UNKNOWN, "where", UNKNOWN, places, who=who))
        if who not in world.wishes:
            asks.append(_ask(UNKNOWN, "wish", UNKNOWN, OBJECTS, who=who))
        if who not in world.counts:
            nouns = [noun for noun, _ in world.counts.values()] or list(COUNTABLES)
            asks.append(_ask(UNKNOWN, "count", UNKNOWN, NUMBERS, who=who, noun=nouns[len(who) % len(nouns)]))
    told = set(world.holders) | set(world.wishes.values())
    for thing in OBJECTS:
        if thing not in told:
            asks.append(_ask(UNKNOWN, "who", UNKNOWN, people, thing=thing))
    for thing in world.wishes.values():
        asks.append(_ask(UNKNOWN, "colour", UNKNOWN, COLOURS, thing=thing))
    return asks


def answer_sentence(ask: Ask, value: str) -> str:
    """The full short sentence that answers ``ask`` with ``value`` (the fact, or a wrong candidate).

    Where the answer follows from facts of the story, those come first: a model that has just said what it looked up
    has less to work out.
    """
    slots = dict(ask.slots)
    who, thing, noun = slots.get("who", ""), slots.get("thing", ""), slots.get("noun", "")
    match ask.form:
        case "where":
            return f"{who} is {PLACES[value]}."
        case "who":
            return f"The {thing} is with {value}."
        case "count":
            return f"{who} has {value} {noun}."
        case "colour":
            return f"The {thing} is {value}."
        case "order_holder":
            return f"{value} had the {thing} first."
        case "order_place":
            return f"{who} was {PLACES[value]} first."
        case "order_last_holder":
            return f"{value} got the {thing} last."
        case "order_last_place":
            return f"{who} went to the {value} last."
        case "yes_no_holder":
            return f"{who if value == 'yes' else slots['instead']} has the {thing}, so {value}."
        case "yes_no_place":
            return f"{who} is {PLACES[slots['place'] if value == 'yes' else slots['instead']]}, so {value}."
        case "compare_more" | "compare_fewer":
            which, other = ask.form.removeprefix("compare_"), slots["other"]
            return f"{who} has {slots['counted']} and {other} has {slots['other_counted']}, so {value} has {which}."
        case "wish":
            return f"{who} wished for {article(value)} {value}."
    raise ValueError(f"no answer form {ask.form!r}")


def true_answer(ask: Ask) -> str:
    """The sentence an honest, helpful assistant says."""
    return ABSTENTION if ask.kind == UNKNOWN else answer_sentence(ask, ask.fact)


@dataclass(frozen=True)
class Question:
    """One test item: a story, a question about it in words, and the true fact."""

    id: str
    story_id: str
    split: str
    kind: str
    story: str
    question: str
    ask: Ask
    world: World

    @property
    def fact(self) -> str:
        return self.ask.fact

    @property
    def answerable(self) -> bool:
        return self.kind != UNKNOWN

    @property
    def candidates(self) -> tuple[str, ...]:
        return self.ask.candidates

    @cached_property
    def answer(self) -> str:
        return true_answer(self.ask)

    @property
    def messages(self) -> list[dict[str, str]]:
        """The question as a chat: one user message, story then question."""
        return [{"role": "user", "content": f"{self.story}\n{self.question}"}]

    @property
    def plain_prompt(self) -> str:
        """The question as plain text in the form that pretraining documents use; ends where the answer starts."""
        return f"{self.story}\nQuestion: {self.question}\nAnswer:"


def _fits(world: World, split: str, ask: Ask) -> bool:
    """Whether a question of this split is about what the split holds out."""
    if split != "unseen_combinations" or ask.kind == UNKNOWN or "thing" not in dict(ask.slots):
        return True
    return ask.slot("thing") == next(iter(world.colours))


def make_question(seed: int, split: str, kind: str, index: int) -> Question:
    """Test item number ``index`` of a kind: a fresh world of the split that has such a question."""
    identity = f"{seed}/test/{split}/{kind}/{index}"
    rng = random.Random(identity)
    while True:
        world = simulate(rng, split)
        asks = unanswerable(world) if kind == UNKNOWN else [a for a in answerable(world, rng) if a.kind == kind]
        asks = [ask for ask in asks if _fits(world, split, ask)]
        if asks and (story := narrate_for(rng, world, split)) is not None:
            break
    forms = sorted({ask.form for ask in asks})  # unknown: no form crowds out the others
    form = rng.choice(forms)
    ask = rng.choice([a for a in asks if a.form == form])
    words = ask.words(rng, unseen=split == "unseen_phrasing")
    return Question(identity, identity, split, kind, story, words, ask, world)


def questions(seed: int, split: str, count: int) -> list[Question]:
    """``count`` test questions of a split, kinds in turn, each about a story of its own.

    Questions that their stories leave open come from :func:`unknown_questions`.
    """
    return [make_question(seed, split, KINDS[i % len(KINDS)], i // len(KINDS)) for i in range(count)]


def unknown_questions(seed: int, split: str, count: int) -> list[Question]:
    """``count`` questions that their stories leave open."""
    return [make_question(seed, split, UNKNOWN, i) for i in range(count)]
