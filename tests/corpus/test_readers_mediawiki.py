"""Dumps of wikis: pages one by one, hostile XML, and wikitext to prose."""

import bz2
import time
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.corpus.documents import Part, Raw, ReaderOptions, Refused
from groundup.corpus.readers import mediawiki, read_part
from groundup.corpus.readers.wikitext import text_of_wikitext

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="de">
  <siteinfo>
    <sitename>Wikipedia</sitename><dbname>dewiki</dbname>
    <base>https://de.wikipedia.org/wiki/Wikipedia:Hauptseite</base>
    <namespaces>
      <namespace key="0" case="first-letter" />
      <namespace key="6" case="first-letter">Datei</namespace>
      <namespace key="14" case="first-letter">Kategorie</namespace>
    </namespaces>
  </siteinfo>
"""
HIDDEN = frozenset(("file", "image", "category", "datei", "kategorie"))


def page(title: str, *texts: str, ns: int = 0, extra: str = "", model: str = "wikitext") -> str:
    revisions = "".join(
        f"<revision><id>{number}</id><model>{model}</model>"
        f'<text bytes="9" xml:space="preserve">{escape(text)}</text></revision>\n'
        for number, text in enumerate(texts)
    )
    return f"  <page>\n    <title>{escape(title)}</title><ns>{ns}</ns><id>1</id>{extra}\n{revisions}  </page>\n"


def dump(*pages: str, head: str = HEAD) -> bytes:
    return (head + "".join(pages) + "</mediawiki>\n").encode()


def read(path: Path, data: bytes) -> list[Raw | Refused]:
    path.write_bytes(data)
    return list(read_part(Part(str(path), "mediawiki", len(data)), ReaderOptions()))


def outcomes(found: list[Raw | Refused]) -> list[tuple[int, str]]:
    return [(item.record, item.text if isinstance(item, Raw) else item.reason) for item in found]


def test_pages_of_a_dump(tmp_path: Path) -> None:
    found = read(
        tmp_path / "dewiki.xml",
        dump(
            page("Köln & Bonn", "'''Köln''' ist eine [[Stadt|Großstadt]].\n[[Datei:x.jpg|mini|Ein [[Bild]]]]"),
            page("Diskussion:Köln", "Text", ns=1),
            page("Cöln", "#WEITERLEITUNG [[Köln]]"),
            page("Coeln", "egal", extra='<redirect title="Köln" />'),
            page("Modul", "return {}", model="Scribunto"),
            page("Geschichte", "alt", "neuer", "am neuesten &amp; <br> &lt;page>"),
            page("Leer", ""),
        ),
    )
    assert outcomes(found) == [
        (1, "Köln & Bonn\n\nKöln ist eine Großstadt."),
        (2, "other_namespace"),
        (3, "redirect"),
        (4, "redirect"),
        (5, "not_text"),
        (6, "Geschichte\n\nam neuesten &\n<page>"),
        (7, ""),
    ]
    first = found[0]
    assert isinstance(first, Raw)
    assert (first.url, first.language) == ("https://de.wikipedia.org/wiki/K%C3%B6ln_%26_Bonn", "de")


@pytest.mark.parametrize(
    "broken",
    [
        "<page><title>x</title><ns>0</ns><revision><text>a & b</text></revision></page>\n",
        "<page><title>x</title><ns>0</ns><revision><text>&bomb;</text></revision></page>\n",
        "<page><title>x</title><ns>0</ns><revision><text>&#0;</text></revision></page>\n",
        "<page><title>x</title><ns>0</ns></page>\n",
        "<page><title>x</ns></page>\n",
        "<page><title>no end\n",
    ],
)
def test_a_broken_page_costs_no_other(broken: str, tmp_path: Path) -> None:
    found = read(tmp_path / "a.xml", dump(page("A", "one"), broken, page("B", "two")))
    assert outcomes(found) == [(1, "A\n\none"), (2, "broken_record"), (3, "B\n\ntwo")]


def test_entities_cannot_be_declared(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {chr(98 + level)} "{f"&{chr(97 + level)};" * 10}">' for level in range(9)
    )
    text = "<page><title>x</title><ns>0</ns><revision><text>&j;</text></revision></page>"
    declared = bomb + "]>\n" + HEAD
    assert outcomes(read(tmp_path / "a.xml", dump(text, head=declared))) == [(0, "not_mediawiki")]
    inside = text.replace("<page>", "<page>" + bomb + "]>")
    assert outcomes(read(tmp_path / "a.xml", dump(inside, page("B", "two")))) == [(1, "broken_record"), (2, "B\n\ntwo")]


def test_invalid_bytes_are_mended(tmp_path: Path) -> None:
    (found,) = read(tmp_path / "a.xml", dump(page("A", "gr@n")).replace(b"@", b"\xfc"))
    assert isinstance(found, Raw)
    assert found.text == "A\n\ngr\ufffdn"


def test_streams_of_a_multistream_dump(tmp_path: Path) -> None:
    pages = [page(f"Seite {number}", "Text. " * number) for number in range(1, 200)]
    streams = [HEAD.encode(), *("".join(pages[start : start + 20]).encode() for start in range(0, 199, 20))]
    data = b"".join(bz2.compress(each) for each in [*streams, b"</mediawiki>"])
    found = read(tmp_path / "a.xml.bz2", data)
    assert [item.text.split("\n")[0] for item in found if isinstance(item, Raw)] == [
        f"Seite {n}" for n in range(1, 200)
    ]
    cut = read(tmp_path / "a.xml.bz2", data[: len(data) // 2])
    assert cut[:-1] == found[: len(cut) - 1]
    assert len(cut) > 50
    assert outcomes(cut)[-1][1] == "damaged_archive"


def test_a_plain_dump_cut_off(tmp_path: Path) -> None:
    whole = dump(page("A", "one"), page("B", "two"))
    cut = whole[: whole.index(b"two") + 3]
    assert outcomes(read(tmp_path / "a.xml", cut)) == [(1, "A\n\none"), (2, "damaged_archive")]


def test_a_page_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mediawiki, "LONGEST", 10**5)
    found = read(tmp_path / "a.xml", dump(page("A", "x" * 10**6), page("B", "two")))
    assert outcomes(found) == [(1, "record_too_long"), (2, "B\n\ntwo")]


@pytest.mark.parametrize("data", [b"<rss><page></page></rss>", b"", b"<?xml version='1.0'?>\n<urlset/>", b"\0" * 100])
def test_other_xml_is_refused(data: bytes, tmp_path: Path) -> None:
    assert outcomes(read(tmp_path / "a.xml", data)) == [(0, "not_mediawiki")]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("'''Bold''' and ''italic'' and '''''both'''''", "Bold and italic and both"),
        ("A [[link]], [[target|label]], [[dog]]s, [[:Category:X|all]]", "A link, label, dogs, all"),
        ("[[File:a.jpg|thumb|A [[caption]] with {{nowrap|x}}]]Text[[Category:Y]][[fr:Chat]]", "Text"),
        ("[https://example.org label] [//example.org] [mailto:a@b me] https://x.org/", "label me https://x.org/"),
        ("before{{cite web|url=x|title={{lang|de|y}}}}after", "beforeafter"),
        ("{{Infobox settlement\n| name = Köln\n| map = [[File:x.png]]\n}}\n'''Köln''' is", "Köln is"),
        ("{{convert|5|km|mi}} or {{cvt|3|to|4|ft|m}}", "5 km or 3 to 4 ft"),
        ("{{lang|fr|déjà vu}}, {{lang-de|Grüße}}, {{langx|la|et al.}}", "déjà vu, Grüße, et al."),
        ("{{circa|1500}}, {{nihongo|Tokyo|東京|Tōkyō}}", "c. 1500, Tokyo (東京, Tōkyō)"),
        ("5{{nbsp}}kg, a{{snd}}b", "5 kg, a – b"),
        ("{{nowrap|1=a = b}} {{formatnum:1234}}", "a = b 1234"),
        ("Text<ref>Note {{cite}}</ref> goes<ref name=x /> on.<ref name=\"y\">More</ref>", "Text goes on."),
        ("a <!-- hidden\n\n --> b<!-- never closed", "a b"),
        ("x<sub>2</sub> y<br/>z <span style=\"a\">in</span> H<sup>+</sup>", "x2 y\nz in H+"),
        ("<nowiki>[[not a link]] ''</nowiki> <math>E = mc^2</math>", "[[not a link]] '' $E = mc^2$"),
        ("<pre>\n{{code}}  <b>\n</pre>", "{{code}}  <b>"),
        ("&lt;tag&gt; &amp;amp; 5&nbsp;km &ndash; é", "<tag> &amp; 5 km – é"),
        ("{| class=wikitable\n! A !! B\n|-\n| 1 || {| nested\n| 2\n|}\n|}\nAfter", "After"),
        ("* one\n** deeper\n# first\n: indented\n; term: text", "- one\n- deeper\n- first\nindented\nterm: text"),
        ("Intro\n== History ==\nText\n=== Early ===\n\n== References ==\n{{reflist}}\n", "Intro\n\nHistory\n\nText"),
        ("== A ==\n=== B ===\ntext", "A\n\nB\n\ntext"),
        ("__NOTOC__Text ----\n----\nmore", "Text ----\n\nmore"),
        ("'''Köln''' ({{IPA|kœln}}; [[Latin]]: Colonia) ({{x}})", "Köln (Latin: Colonia)"),
        ("-{zh-hans:计算机; zh-hant:電腦}- -{x}-", "计算机 x"),
        ("open {{cite web|title=x\nnext [[link", "open\nnext link"),
        ("[[a {{b]] c}} d", "a c d"),
        ("{| open\n| cell\nprose after", "prose after"),
        ("}} ]]\n |} stray", "stray"),
        ("", ""),
    ],
)  # fmt: skip
def test_wikitext(markup: str, text: str) -> None:
    assert text_of_wikitext(markup, HIDDEN) == text


pieces = st.sampled_from(
    ["{{", "}}", "[[", "]]", "{|", "|}", "|", "\n", "\n{|", "\n|}", "\n|", "<ref>", "</ref>", "<ref/>", "<!--", "-->",
     "<nowiki>", "</nowiki>", "''", "'''", "==", "\n== ", " ==\n", "*", "[http://x ", "]", "-{", "}-", ":", ";",
     "&amp;", "text", "é", "File:", "lang|de|", "<br>", "<math>", "__TOC__", "\x01", "(", ")", "=", "{", "}", "[",
     "<", ">"]
)  # fmt: skip


@given(st.lists(pieces, max_size=40).map("".join))
@settings(max_examples=300)
def test_any_wikitext_gives_a_text(markup: str) -> None:
    text = text_of_wikitext(markup, HIDDEN)
    assert text == text.strip()
    assert "\n\n\n" not in text


@pytest.mark.parametrize(
    "piece",
    ["{{", "[[", "{{a|", "[[a|", "<ref>", "<nowiki>", "<!--", "\n{|", "}}", "{{{", "'''", "[http://x ",
     "<", "-{", " (", "(;", "=", "a {{"]
)  # fmt: skip
def test_time_is_linear_in_hostile_text(piece: str) -> None:
    def seconds(length: int) -> float:
        markup = (piece * length)[: 4 * length]
        begin = time.process_time()
        text_of_wikitext(markup, HIDDEN)
        return time.process_time() - begin

    small = min(seconds(2_000) for _ in range(3))
    assert seconds(20_000) < 40 * max(small, 0.005)
