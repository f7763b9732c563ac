"""``[corpus.filters.language]``: which languages are kept, and how sure the detector must be."""

from __future__ import annotations

from difflib import get_close_matches

from pydantic import Field, field_validator

from groundup.recipe.base import Section

# What the detectors of the corpus room tell apart: ISO 639-1 codes, ISO 639-3 where a language has no such.
LANGUAGES: dict[str, str] = {
    "aa": "Afar", "ab": "Abkhazian", "af": "Afrikaans", "ak": "Akan", "am": "Amharic", "an": "Aragonese",
    "ar": "Arabic", "as": "Assamese", "ay": "Aymara", "az": "Azerbaijani", "ba": "Bashkir", "be": "Belarusian",
    "bg": "Bulgarian", "bi": "Bislama", "bn": "Bengali", "bo": "Tibetan", "br": "Breton", "ca": "Catalan",
    "ceb": "Cebuano", "chr": "Cherokee", "co": "Corsican", "crs": "Seychellois Creole", "cs": "Czech", "cy": "Welsh",
    "da": "Danish",
    "de": "German", "dv": "Dhivehi", "dz": "Dzongkha", "el": "Greek", "en": "English", "eo": "Esperanto",
    "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish", "fj": "Fijian",
    "fo": "Faroese", "fr": "French", "fy": "Frisian", "ga": "Irish", "gd": "Scottish Gaelic", "gl": "Galician",
    "gn": "Guarani", "gu": "Gujarati", "gv": "Manx", "ha": "Hausa", "haw": "Hawaiian", "he": "Hebrew",
    "hi": "Hindi", "hmn": "Hmong", "hr": "Croatian", "ht": "Haitian Creole", "hu": "Hungarian",
    "hy": "Armenian", "ia": "Interlingua", "id": "Indonesian", "ie": "Interlingue", "ig": "Igbo",
    "ik": "Inupiaq", "is": "Icelandic", "it": "Italian", "iu": "Inuktitut", "ja": "Japanese", "jv": "Javanese",
    "ka": "Georgian", "kha": "Khasi", "kk": "Kazakh", "kl": "Greenlandic", "km": "Khmer", "kn": "Kannada",
    "ko": "Korean", "ks": "Kashmiri", "ku": "Kurdish", "ky": "Kyrgyz", "la": "Latin", "lb": "Luxembourgish",
    "lg": "Ganda", "lif": "Limbu", "ln": "Lingala", "lo": "Lao", "lt": "Lithuanian", "lv": "Latvian",
    "mfe": "Mauritian Creole", "mg": "Malagasy", "mi": "Maori", "mk": "Macedonian", "ml": "Malayalam",
    "mn": "Mongolian", "mr": "Marathi", "ms": "Malay", "mt": "Maltese", "my": "Burmese", "na": "Nauru",
    "nb": "Norwegian Bokmål", "ne": "Nepali", "nl": "Dutch", "nn": "Norwegian Nynorsk", "nr": "Southern Ndebele",
    "nso": "Northern Sotho", "ny": "Nyanja", "oc": "Occitan", "om": "Oromo", "or": "Odia", "pa": "Punjabi",
    "pl": "Polish", "ps": "Pashto", "pt": "Portuguese", "qu": "Quechua", "rm": "Romansh", "rn": "Rundi",
    "ro": "Romanian", "ru": "Russian", "rw": "Kinyarwanda", "sa": "Sanskrit", "sco": "Scots", "sd": "Sindhi",
    "se": "Northern Sami", "sg": "Sango", "si": "Sinhala", "sk": "Slovak", "sl": "Slovenian", "sm": "Samoan",
    "sn": "Shona", "so": "Somali", "sq": "Albanian", "sr": "Serbian", "ss": "Swati", "st": "Southern Sotho",
    "su": "Sundanese", "sv": "Swedish", "sw": "Swahili", "syr": "Syriac", "ta": "Tamil", "te": "Telugu",
    "tg": "Tajik", "th": "Thai", "ti": "Tigrinya", "tk": "Turkmen", "tl": "Tagalog", "tn": "Tswana",
    "to": "Tonga", "tr": "Turkish", "ts": "Tsonga", "tt": "Tatar", "ug": "Uyghur", "uk": "Ukrainian",
    "ur": "Urdu", "uz": "Uzbek", "ve": "Venda", "vi": "Vietnamese", "vo": "Volapük", "wa": "Walloon",
    "war": "Waray", "wo": "Wolof", "xh": "Xhosa", "yi": "Yiddish", "yo": "Yoruba", "za": "Zhuang",
    "zh": "Chinese", "zu": "Zulu",
}  # fmt: skip
UNKNOWN = "und"

# What people write for a language that is reported under another code.
_REPORTED_AS = {
    "no": "'nb' (Bokmål) and 'nn' (Nynorsk)",
    "bs": "'hr': Bosnian is reported as Croatian, since no detector here tells the two apart",
    "sh": "'hr' and 'sr'",
    "iw": "'he'",
    "in": "'id'",
    "jw": "'jv'",
    "ji": "'yi'",
    "fil": "'tl'",
    "cmn": "'zh'",
    "zh-cn": "'zh'",
    "zh-tw": "'zh'",
    "zh-hans": "'zh'",
    "zh-hant": "'zh'",
}


class LanguageSection(Section):
    """Documents in other languages are refused, and so are those whose language is not sure enough.

    The language is found by statistics of letters on a sample of the text. Bosnian is reported as Croatian.
    """

    keep: tuple[str, ...] = Field(
        default=(),
        description="Languages kept, as ISO 639-1 codes (`en`, `de`; ISO 639-3 where there is none; `und` where no "
        "language is found). Empty keeps all.",
    )
    min_confidence: float = Field(
        default=0.65,
        ge=0,
        le=1,
        description="The least confidence in the language found: about the share of the sample that is in it.",
    )
    sample_characters: int = Field(
        default=1000,
        ge=50,
        description="How much of the middle of a document is looked at. Unit: characters.",
    )

    @field_validator("keep")
    @classmethod
    def _known(cls, keep: tuple[str, ...]) -> tuple[str, ...]:
        for code in keep:
            if code not in LANGUAGES and code != UNKNOWN:
                raise ValueError(f"unknown language {code!r} in keep; {_hint(code)}")
        return tuple(dict.fromkeys(keep))


def _hint(code: str) -> str:
    plain = code.strip().lower()
    if plain in _REPORTED_AS:
        return f"write {_REPORTED_AS[plain]}"
    names = {name.lower(): known for known, name in LANGUAGES.items()}
    for part in (plain, plain.replace("_", "-").split("-")[0]):
        if part in LANGUAGES or part in names:
            return f"did you mean {names.get(part, part)!r}?"
    for known in (names if len(plain) > 3 else {}, {code: code for code in LANGUAGES}):
        close = get_close_matches(plain, known, n=1, cutoff=0.5)
        if close:
            return f"did you mean {known[close[0]]!r}?"
    return "write ISO 639-1 codes, as 'en', 'de', 'zh'"
