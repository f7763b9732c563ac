"""The words of the story world, and which of them training never sees.

Every held-out set is fixed here, by construction and not by a random draw: a name of ``UNSEEN_NAMES`` or a
(colour, object) pair for which :func:`is_unseen_combination` is true appears in no training text of any stage.
"""

NAMES = (
    "Mia", "Tom", "Ana", "Ben", "Lily", "Sam", "Zoe", "Max", "Ella", "Leo", "Nina", "Jack", "Rosa", "Finn", "Ivy",
    "Omar", "Lucy", "Hugo", "Maya", "Carl", "Nora", "Theo", "Emma", "Paul", "Ruth", "Adam", "Tara", "Noah", "Jane",
    "Luis", "Kate", "Amir",
)  # fmt: skip
UNSEEN_NAMES = (
    "Olga",
    "Yuri",
    "Clara",
    "Felix",
    "Wendy",
    "Igor",
    "Greta",
    "Bruno",
    "Sofia",
    "Diego",
    "Alma",
    "Otto",
)

PLACES = {
    "kitchen": "in the kitchen",
    "garden": "in the garden",
    "park": "in the park",
    "barn": "in the barn",
    "market": "at the market",
    "school": "at the school",
    "beach": "on the beach",
    "hill": "on the hill",
    "river": "by the river",
    "lake": "by the lake",
    "library": "in the library",
    "forest": "in the forest",
}
"""Place -> where somebody is who is there."""

OBJECTS = (
    "ball", "kite", "hat", "drum", "book", "cup", "doll", "lamp", "boat", "ring", "scarf", "bell", "basket", "flute",
)  # fmt: skip
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "pink", "brown")
COUNTABLES = ("apples", "shells", "stones", "coins", "nuts", "pears", "flowers", "buttons")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

SINGULAR = {
    "apples": "apple", "shells": "shell", "stones": "stone", "coins": "coin", "nuts": "nut", "pears": "pear",
    "flowers": "flower", "buttons": "button",
}  # fmt: skip


def is_unseen_combination(colour: str, thing: str) -> bool:
    """True for the one (colour, object) pair in seven that is kept for the split ``unseen_combinations``."""
    return (COLOURS.index(colour) * 3 + OBJECTS.index(thing) * 2) % 7 == 0


def number_word(count: int, noun: str) -> str:
    """``3, "shells"`` -> ``"three shells"``; ``1, "shells"`` -> ``"one shell"``."""
    return f"{NUMBERS[count]} {SINGULAR[noun] if count == 1 else noun}"


def article(word: str) -> str:
    """The indefinite article of an English word by its first letter."""
    return "an" if word[0] in "aeiou" else "a"
