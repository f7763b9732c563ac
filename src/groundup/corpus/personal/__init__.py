"""Personal data become typed placeholders: <email>, <ip>, <phone>, <credit_card>, <iban>, <us_ssn>, <key>.

`rows` finds by numpy where in a batch there is anything to look at; `addresses`, `phones`, `accounts` and `keys`
judge those places with regular expressions and check digits; `redact` settles overlaps and writes the texts anew.
"""

from groundup.corpus.personal.redact import Redacted, Spans, find, redact

__all__ = ["Redacted", "Spans", "find", "redact"]
