"""Words by what they mean, and where a sentence has them."""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

_REFUSING: Final = (
    r"\b(?:not|less|without|except|skip|drop|forget|hate|dislike|don't (?:like|want)|"
    r"instead of|rather than{no})\s+(?:(?:a|an|the|any|about|for|into|more)\s+)*$"
)


class Hit(NamedTuple):
    """A word that was found: its meaning, where it starts in the text, and whether it is what
    somebody does not want ("not Paris", "instead of shoes")."""

    meaning: str
    start: int
    refused: bool


class Lexicon:
    """A table of meaning -> "word, word". The meaning itself and plurals are words too; case does
    not matter, and the longest word counts."""

    def __init__(self, table: Mapping[str, str], *, no_refuses: bool = True) -> None:
        """Compile the table.

        Args:
            table: meaning to its further words, with commas between them.
            no_refuses: "no Nike" means anything but Nike. Otherwise "no" corrects what was said
                before, and the word is wanted.
        """
        self._meanings = {
            form: meaning
            for meaning, words in table.items()
            for word in [meaning.lower(), *words.split(", ")]
            for form in (word, f"{word}s", f"{word}es")
            if word
        }
        longest_first = sorted(self._meanings, key=len, reverse=True)
        words = "|".join(map(re.escape, longest_first))
        self._pattern = re.compile(rf"(?<![\w'-])(?:{words})(?![\w-])", re.IGNORECASE)
        self._refusing = re.compile(
            _REFUSING.format(no="|no|no more" if no_refuses else ""), re.IGNORECASE
        )

    def find(self, text: str) -> Iterator[Hit]:
        """Yield what of this lexicon is in `text`, from left to right."""
        for match in self._pattern.finditer(text):
            # None for letters such as the dotless i, which only the pattern takes for an i.
            if meaning := self._meanings.get(match[0].lower()):
                refused = self._refusing.search(text, endpos=match.start()) is not None
                yield Hit(meaning, match.start(), refused)

    def wanted(self, text: str) -> list[str]:
        """Return the meanings in `text` that are not refused, each once."""
        return list(dict.fromkeys(hit.meaning for hit in self.find(text) if not hit.refused))

    def refused(self, text: str) -> list[str]:
        """Return the meanings in `text` that are."""
        return [hit.meaning for hit in self.find(text) if hit.refused]

    def position(self, text: str) -> int | None:
        """Return where the first of them starts; None if there is none."""
        return next((hit.start for hit in self.find(text)), None)
