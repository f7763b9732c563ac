"""Personal data: labelled sentences, real prose, each kind's forms, hostile text, and that redaction is stable."""

import gzip
import json
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from groundup.corpus.personal import find, redact
from groundup.corpus.personal.accounts import iban_holds, luhn_holds
from groundup.corpus.personal.rows import Rows
from groundup.recipe.personal import KINDS, PersonalDataSection

GOLD = {
    "CREDIT_CARD": "credit_card",
    "PHONE_NUMBER": "phone",
    "EMAIL_ADDRESS": "email",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip",
    "US_SSN": "us_ssn",
}


def texts(*values: str) -> pa.LargeStringArray:
    return pa.array(values, pa.large_string())


def redacted(text: str, **options: object) -> str:
    return redact(texts(text), **options).texts[0].as_py()  # type: ignore[arg-type]


def spans_by_row(values: list[str], private: bool = False) -> list[list[tuple[int, int, str]]]:
    """(start, stop, kind) in characters of each text."""
    spans = find(texts(*values), private_addresses=private)
    found: list[list[tuple[int, int, str]]] = [[] for _ in values]
    for row, start, stop, kind in zip(spans.row, spans.start, spans.stop, spans.kind, strict=True):
        data = values[row].encode()
        found[row].append((len(data[:start].decode()), len(data[:stop].decode()), KINDS[kind]))
    return found


# A labelled span is found where one span of its kind covers it whole. A found span is right where a labelled one of
# its kind lies in it and leaves at most two characters over.
@pytest.mark.parametrize("file", ["generated_large", "synth_dataset_v2"])
@pytest.mark.parametrize("private", [False, True])
def test_recall_and_precision_on_labelled_sentences(real_data: Path, file: str, private: bool) -> None:
    records = json.loads(gzip.decompress((real_data / "pii" / f"{file}.json.gz").read_bytes()))
    values = [record["full_text"] for record in records]
    found = spans_by_row(values, private)
    gold, hit, predicted, right = Counter(), Counter(), Counter(), Counter()
    for record, mine in zip(records, found, strict=True):
        labelled = [
            (span["start_position"], span["end_position"], GOLD[span["entity_type"]])
            for span in record["spans"]
            if span["entity_type"] in GOLD
        ]
        for start, stop, kind in labelled:
            gold[kind] += 1
            hit[kind] += any(a <= start and stop <= b and kind == other for a, b, other in mine)
        for a, b, kind in mine:
            predicted[kind] += 1
            right[kind] += any(
                a <= start and stop <= b and b - a <= stop - start + 2 and kind == other
                for start, stop, other in labelled
            )
    for kind in GOLD.values():
        # One address in generated_large is 10.218.6.131, which no public network has: left as it is by default.
        missed_by_design = 1 if kind == "ip" and file == "generated_large" and not private else 0
        assert hit[kind] + missed_by_design >= 0.95 * gold[kind], kind
        assert right[kind] >= 0.9 * predicted[kind], kind
    assert predicted["key"] == 0


def test_ordinary_prose_is_left_alone(real_data: Path) -> None:
    """Years, ranges, ISBNs, numbers of sections, formulas: at most one false span in two megabytes."""
    with gzip.open(real_data / "wikipedia" / "train-0.jsonl.gz", "rt", encoding="utf-8") as lines:
        articles = [json.loads(line)["text"] for line, _ in zip(lines, range(350), strict=False)]
    books = [gzip.decompress(file.read_bytes()).decode() for file in sorted((real_data / "books").glob("*.gz"))[:6]]
    values = [*articles, *books]
    found = [values[row][start:stop] for row, spans in enumerate(spans_by_row(values)) for start, stop, _ in spans]
    assert len(found) <= sum(map(len, values)) / 2e6, found


def test_technical_documents_lose_addresses_only(real_data: Path) -> None:
    files = sorted((real_data / "techdocs").rglob("*.gz")) or sorted((real_data / "techdocs").rglob("*.*"))
    values = [(gzip.decompress(f.read_bytes()) if f.suffix == ".gz" else f.read_bytes()).decode() for f in files[:150]]
    kinds = Counter(kind for spans in spans_by_row(values) for _, _, kind in spans)
    assert kinds["email"] > 50  # those of the authors
    assert sum(kinds.values()) - kinds["email"] <= 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # e-mail
        ("Write to Jane.Doe+news@mail.example.co.uk.", "Write to <email>."),
        ("<o'brien@example.org>, 'x_y@example.org'", "<<email>>, '<email>'"),
        ("mailto:a@xn--bcher-kva.example", "mailto:<email>"),
        ("邮箱abc@example.cn。", "邮箱<email>。"),
        # IP addresses
        ("from 8.8.4.104:443 and 93.184.216.34.", "from <ip>:443 and <ip>."),
        ("at 2001:4860:4860::8888, 2a00:1450:4001:0831:0000:0000:0000:200e", "at <ip>, <ip>"),
        ("ip:2001:4860:4860::8888", "ip:<ip>"),
        ("|106.31.73.20|%20/", "|<ip>|%20/"),
        # telephone
        ("+46 (0)8 928 571 38, +442079460958 and +1-202-555-0143 x12!", "<phone>, <phone> and <phone>!"),
        ("(212) 555-0123, 212-555-0123 or 212.555.0123", "<phone>, <phone> or <phone>"),
        ("01.84.17.61.18 / 07700 900 123 / (020) 7946 0958", "<phone> / <phone> / <phone>"),
        ("Phone:\n61 51 81\n", "Phone:\n<phone>\n"),
        ("You can call me at 469 34 883 or 22 498317 (mobile).", "You can call me at <phone> or <phone> (mobile)."),
        ("Tel. 089 72 63 41, Téléphone : 02 27 96 63", "Tel. <phone>, Téléphone : <phone>"),
        ("tel=202-555-0143", "tel=<phone>"),
        ("(+44) 20 7946 0958; DC 20036 202-955-1113", "<phone>; DC 20036 <phone>"),
        ("Bob,4111111111111111,12/25,212-555-0123,7", "Bob,<credit_card>,12/25,<phone>,7"),
        # cards: Visa, Mastercard, American Express, Maestro; an unknown issuer only after a word for a card
        ("4111 1111 1111 1111, 5555-5555-5555-4444, 378282246310005", "<credit_card>, <credit_card>, <credit_card>"),
        ("3782 822463 10005 and 6759649826438453", "<credit_card> and <credit_card>"),
        ("my card 587428561654 is", "my card <credit_card> is"),
        # accounts
        ("GB82 WEST 1234 5698 7654 32 or de89370400440532013000.", "<iban> or <iban>."),
        ("Here's my SSN: 205-46-4452", "Here's my SSN: <us_ssn>"),
        ("social security number 205 46 4452", "social security number <us_ssn>"),
        # keys
        ("aws AKIAIOSFODNN7EXAMPLE end", "aws <key> end"),
        ("token=ghp_16C7e42F292c6912E7710c838347Ae178B4a", "token=<key>"),
        ('key = "sk-proj-abcdefgh12345678ABCDEFGH"', 'key = "<key>"'),
        ("xoxb-123456789012-abcdefghijkl", "<key>"),
        ("?key=AIzaSyA1234567890abcdefghijklmnopqrst_v&x", "?key=<key>&x"),
        ("sk_live_4eC39HqLyjWDarjtT1zdp7dc", "<key>"),
        ("Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P", "Bearer <key>"),
        ("password = 'hunter2hunter'", "password = '<key>'"),
        ('{"client_secret": "9f8A7b6C5d4E", "a": 1}', '{"client_secret": "<key>", "a": 1}'),
        ("DB_PASSWORD=Tr0ub4dor&3x!", "DB_PASSWORD=<key>"),
        ("postgres://bob:s3cr3tpw9@db.example.com/x", "postgres://bob:<key>@db.example.com/x"),
        ("x\n-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nab+/=\n-----END RSA PRIVATE KEY-----\ny", "x\n<key>\ny"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n\nThen text.", "<key>\n\nThen text."),
    ],
)  # fmt: skip
def test_what_is_replaced(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "From 1914-1918, 1939/1945 and 1914 1918 1939; pp. 123-145, 2012-2013.",
        "ISBN 978-0-306-40615-7, ISBN 0-306-40615-2, ISBN 9780306406157, PEP 484, RFC 2822, doi:10.1000/182",
        "on 2024-01-31, 31.01.2024, 01/31/2024 at 12:30:45; call 01.02.2003",
        "1,234,567 people; 1 234 567 km²; 3.14159265358979; 123456789; $1,000,000.00",
        "0.4111111111111111, 4111111111111112 and 1234567812345678",  # no Luhn; no card
        "version 4.18.12.31, v10.0.19041.1, section 12.10.3.4, 1.2.3.4, 256.10.10.10, 1.3.6.1.4.1.311",
        "127.0.0.1, 10.218.6.131, 192.168.10.12, 255.255.255.0, 203.0.113.77, 2001:db8::1, fe80::1",
        "std::vector, a::b, 12::34, 2006::, face:b00c, aa:bb:cc:dd:ee:ff, 12:34:56:78:9a:bc:de:f0:11",
        "GB82 WEST 1234 5698 7654 33, XX8237040044053201300012",
        "205-46-44521, 000-12-3456, 666-12-3456, 912-34-5678, 2270-66-1551",
        "icon@2x.png, git@github.com:a/b.git, @user, a@b, user@localhost, lodash@4.17.21",
        "password: string, password=None, token = get_token(), secret: <your secret here>, api_key = environ['K1']",
        'password="password123", token: "${TOKEN_1}", secret = config.secrets.db1, pwd=/home/user1/x2',
        "AKIA123, sk-learn, sk-something-without-digits-here, eyJhbGci, -----BEGIN CERTIFICATE-----",
        "He scored 123 456 runs; the 555-1234 form; 12-34-56-78 in a row; 100 200 300 400; call 911",
        "The call of 1914-1918 reached 2010 2011 offices.",
    ],
)  # fmt: skip
def test_what_is_left(text: str) -> None:
    assert redacted(text) == text


def test_private_addresses_on_request() -> None:
    assert redacted("10.218.6.131 fe80::1 127.0.0.1", private_addresses=True) == "<ip> fe80::1 <ip>"


def test_the_earlier_kind_wins_where_two_overlap() -> None:
    assert redacted("http://bob:c4rr1age@212-555-0123.example.com") == "http://bob:<key>@<phone>.example.com"
    assert redacted("api_key = 'x212-555-0123y'") == "api_key = '<key>'"
    assert redacted("john.4111111111111111@example.com") == "<email>"
    assert redacted("john.4111111111111111@example.com", kinds=["credit_card", "phone"]) != "<email>"
    assert redacted("call 205-46-4452") == "call <us_ssn>"
    assert redacted("call 205-46-4452", kinds=["phone"]) == "call <phone>"


def test_counts_changed_rows_and_the_placeholder() -> None:
    values = texts("nothing", "a@example.com b@example.com 212-555-0123", "", "8.8.4.104")
    result = redact(values, ["email", "ip"], "[{kind}]")
    assert result.texts.to_pylist() == ["nothing", "[email] [email] 212-555-0123", "", "[ip]"]
    assert result.texts.type == pa.large_string()
    assert result.counts == {"email": 2, "ip": 1}
    assert result.changed.tolist() == [False, True, False, True]
    assert redact(values.slice(0, 1)).texts.equals(values.slice(0, 1))
    assert redact(values.slice(3, 1)).texts.to_pylist() == ["<ip>"]
    assert redact(values.slice(4)).texts.to_pylist() == []
    assert redact(pa.array([], pa.large_string())).counts == dict.fromkeys(KINDS, 0)


FRAGMENTS = st.sampled_from([
    "a@b.com", "@", "212-555-0123", "4111111111111111", "GB82WEST12345698765432", "8.8.4.104", "205-46-4452",
    "password=", "'Abc12345678'", "AKIAIOSFODNN7EXAMPLE", "-----BEGIN PRIVATE KEY-----", "phone ", "call ", "office",
    " ", "\n", "-", ".", "/", ":", "(0)", "+46", "1", "x12", "é", "漢", "2001:db8::1", "::", "<", ">", "http://a:",
    "1914-1918", "ext. 5", "eyJ", "=", '"',
])  # fmt: skip
TEXT = st.lists(st.one_of(FRAGMENTS, st.text(max_size=4)), max_size=12).map("".join)


@given(st.lists(TEXT, max_size=4), st.sampled_from(["<{kind}>", "{kind}", "[REDACTED_{kind}_HERE]", "phone"]))
@settings(max_examples=300)
def test_redacting_again_changes_nothing_and_neighbours_do_not_matter(values: list[str], placeholder: str) -> None:
    once = redact(texts(*values), placeholder=placeholder)
    again = redact(once.texts, placeholder=placeholder)
    assert again.texts.to_pylist() == once.texts.to_pylist()
    assert not any(again.counts.values())
    alone = [redact(texts(value), placeholder=placeholder) for value in values]
    assert once.texts.to_pylist() == [result.texts[0].as_py() for result in alone]
    assert once.changed.tolist() == [bool(result.changed[0]) for result in alone]


@given(st.lists(TEXT, max_size=4))
@settings(max_examples=100)
def test_places_to_look_at_agree_with_regular_expressions(values: list[str]) -> None:
    """A number is a digit and what follows over at most three separators; a token 19 characters or more of ASCII."""
    rows = Rows.of_texts(texts(*values))
    separators = rb"[ .\-/()xX\t\xc2\xa0]{0,3}"
    expected, covered = [], np.zeros(rows.size + 1, bool)
    for start, stop in zip(*rows.tokens, strict=True):
        covered[start:stop] = True
    for value, offset in zip(values, rows.offsets, strict=False):
        data = value.encode()
        for match in re.finditer(rb"\d(?:" + separators + rb"\d)*", data):
            digits = len(re.findall(rb"\d", match[0]))
            expected.append((offset + match.start(), offset + match.end(), digits))
        for match in re.finditer(rb"[!-\x7f]{19,}", data):
            assert covered[offset + match.start() : offset + match.end()].all()
    numbers = rows.numbers
    assert list(zip(numbers.start, numbers.stop, numbers.digits, strict=True)) == expected


HOSTILE = [
    "1", "12 ", "1.1.1.1 ", "(0)", "+1 ", "@", "a@", "a@b.c@", "x" * 64 + "@", ":", "2001::", "1:2:", "eyJaaaaaaaa.",
    "-----BEGIN PRIVATE KEY-----\nAAAAAAAAAAAAAAAAAAAA\n", "password=", "password='", "key=", "sk-1a-",
    "GB50 AAAA", "eyJ-", "4111-", "phone ", "call me at 1", "1x", "http://a:b1c2d3@", "http://a:", "9\xa0", "A1", ".",
]  # fmt: skip


@pytest.mark.parametrize("pattern", HOSTILE)
def test_hostile_text_costs_linear_time(pattern: str) -> None:
    """64 KiB of it in under a second; what takes quadratic time needs minutes."""
    start = time.process_time()
    redact(texts(pattern * (2**16 // len(pattern))))
    assert time.process_time() - start < 1


@pytest.mark.slow
@pytest.mark.parametrize("pattern", HOSTILE)
def test_a_hostile_megabyte(pattern: str) -> None:
    start = time.process_time()
    redact(texts(pattern * (2**20 // len(pattern))))
    assert time.process_time() - start < 8


@pytest.mark.parametrize(
    ("digits", "holds"), [(b"79927398713", True), (b"79927398710", False), (b"0", True), (b"18", True), (b"81", False)]
)
def test_luhn(digits: bytes, holds: bool) -> None:
    assert luhn_holds(digits) is holds


def test_iban_check_digits() -> None:
    assert iban_holds(b"GB82WEST12345698765432")
    assert not any(iban_holds(b"GB%02dWEST12345698765432" % check) for check in range(2, 99) if check != 82)


def test_the_section_refuses_placeholders_that_are_found_and_orders_the_kinds() -> None:
    assert PersonalDataSection().kinds == KINDS
    assert PersonalDataSection(kinds=("phone", "email")).kinds == ("email", "phone")
    for placeholder in ("", "x@y.com", "555-1234"):
        with pytest.raises(ValidationError, match="placeholder"):
            PersonalDataSection(placeholder=placeholder)
    with pytest.raises(ValidationError):
        PersonalDataSection(kinds=("mail",))  # type: ignore[arg-type]
