"""Generate the sync consumer from the async one.

python tools/unasync.py            write channels/_sync_consumers.py
python tools/unasync.py --check    fail if it is not what would be written
"""

import re
import sys
from pathlib import Path

CHANNELS = Path(__file__).parent.parent / "django_convstate" / "channels"
SOURCE, TARGET = CHANNELS / "consumers.py", CHANNELS / "_sync_consumers.py"
HEADER = """\
# Generated from consumers.py by tools/unasync.py. Change that, and run this.
# fmt: off
"""
WORDS = [
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsync(\w+)", r"\1"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\b(_?)a(join|load|notify|open|page|save|saving_interrupted|touch|turn)\(", r"\1\2("),
]


def unasync(text: str) -> str:
    for pattern, replacement in WORDS:
        text = re.sub(pattern, replacement, text)
    return HEADER + text


if __name__ == "__main__":
    generated = unasync(SOURCE.read_text())
    if sys.argv[1:] != ["--check"]:
        TARGET.write_text(generated)
    elif not TARGET.exists() or TARGET.read_text() != generated:
        sys.exit(f"{TARGET.name} is not up to date with {SOURCE.name}: run tools/unasync.py.")
