"""`make bench-docs BENCH_ARGS="FILE..."`: put what benchmarks have written as JSON into the tables
of docs/performance.md and docs/scale.md. The comment above a table names it."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("performance.md", "scale.md")
# <!-- table: name -->, and then the table
TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n)(?:\|.*\n)*")


def markdown(table: dict[str, Any]) -> str:
    """Return a table of GitHub's Markdown."""
    lines = [table["columns"], ["---"] * len(table["columns"]), *table["rows"]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def machine_table(found: dict[str, Any]) -> dict[str, Any]:
    rows = [[name, value] for name, value in found["machine"].items()]
    return {"columns": ["", f"`make bench-{found['benchmark']}`"], "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="what benchmarks have written")
    tables: dict[str, dict[str, Any]] = {}
    for file in parser.parse_args().files:
        found = json.loads(file.read_text())
        name = found["benchmark"]
        for key, table in found["tables"].items():
            tables[f"{name}-goals" if key == "goals" else key] = table
        tables[f"{name}-machine"] = machine_table(found)

    def filled(match: re.Match[str]) -> str:
        table = tables.get(match[2])
        return match[0] if table is None else match[1] + markdown(table)

    for page in (DOCS / name for name in PAGES):
        page.write_text(TABLE.sub(filled, page.read_text()))


if __name__ == "__main__":
    main()
