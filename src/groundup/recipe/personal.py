"""``[corpus.personal_data]``: what is replaced by placeholders."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from groundup.recipe.base import Section

Kind = Literal["email", "ip", "phone", "credit_card", "iban", "key", "us_ssn"]
KINDS: tuple[Kind, ...] = ("key", "email", "iban", "credit_card", "us_ssn", "ip", "phone")


class PersonalDataSection(Section):
    """Personal data become typed placeholders, as <email>, counted by kind.

    Where two kinds claim the same characters the first of this order wins: key, email, iban, credit_card,
    us_ssn, ip, phone.
    """

    kinds: tuple[Kind, ...] = Field(
        default=KINDS,
        min_length=1,
        description="What is replaced: e-mail addresses, public IP addresses (versions 4 and 6), phone numbers, "
        "payment cards, IBAN bank accounts, keys and tokens of services, US social security numbers.",
    )
    placeholder: str = Field(
        default="<{kind}>",
        description="What stands in their place; `{kind}` becomes the kind's name. No digits and no @, so that it "
        "is not taken for personal data itself.",
    )
    private_addresses: bool = Field(
        default=False,
        description="Replace IP addresses that are not public too (private, loopback, documentation and the like), "
        "which name no person.",
    )

    @field_validator("placeholder")
    @classmethod
    def _finds_nothing(cls, placeholder: str) -> str:
        if not placeholder.strip() or any(character.isdigit() or character == "@" for character in placeholder):
            raise ValueError(f"placeholder = {placeholder!r} must have some text, but no digits and no @")
        return placeholder

    @field_validator("kinds")
    @classmethod
    def _once(cls, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
        return tuple(kind for kind in KINDS if kind in kinds)
