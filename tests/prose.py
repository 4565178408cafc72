"""Checks the English of code and pages: `python -m tests.prose [PATH ...]`.

It reports words that a native engineer of this field would not write, British spelling, and
sentences in docstrings and pages that are too long to read once. Without paths it checks every
file that git tracks.
"""

import ast
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
MAX_WORDS = 30  # in a sentence

# Word or phrase, as a regular expression: what to write instead.
WORDS = {
    "aforesaid|thereof|whereof|whereupon|hitherto": "plain words",
    "amid": "among, during",
    "anew": "again",
    "beside": "next to, with, in addition to",
    "but for": "except",
    "dealt|deals out|deal them|deals images": "split, distribute",
    "every so many": "every N",
    "figures? of merit": "metric",
    "forbear|heed|heeds|heeded": "use, follow",
    "goes on|go on|going on|went on": "continue",
    "hinders?|hindered": "prevent",
    "judge|judges|judged|judging|judgements?|judgments?": "evaluate, score",
    "mend|mends|mended|mending": "fix",
    "nobody": "no one, nothing, or name the actor",
    "none of": "no",
    "of (?:its|his|her|their|our|your|one's|my) own": "own, separate",
    "so many": "N, this many",
    "surest": "most confident",
    "unheard": "ignored",
    "wherein|whereby|whence|thence|hence": "so, therefore",
    "whoever|whichever|whosoever": "name the actor",
    "wish|wishes|wished": "request, want",
    # One spelling: the field's.
    "behaviour": "behavior",
    "cancell(?:ed|ing)": "canceled, canceling",
    "centres?|centred": "center",
    "colours?|coloured|colouring": "color",
    "favour\\w*": "favor",
    "grey\\w*": "gray",
    "initialis\\w*": "initialize",
    "labell(?:ed|ing)": "labeled, labeling",
    "licences?": "license",
    "modell(?:ed|ing)": "modeled",
    "neighbour\\w*": "neighbor",
    "normalis\\w*": "normalize",
    "optimis\\w*": "optimize",
    "quantis\\w*": "quantize",
    "recognis\\w*": "recognize",
    "serialis\\w*": "serialize",
    "standardis\\w*": "standardize",
    "summaris\\w*": "summarize",
    "synchronis\\w*": "synchronize",
}
_RULES = [
    (re.compile(rf"(?<![A-Za-z])(?:{words})(?![A-Za-z])", re.IGNORECASE), instead)
    for words, instead in WORDS.items()
]
# Files that must quote such words.
_EXEMPT = ("LICENSE", "tests/prose.py", "tests/test_prose.py")


def word_complaints(path: str, text: str) -> list[str]:
    """Complaints about single words, in all of a text: prose, names and messages."""
    complaints = []
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, instead in _RULES:
            for match in pattern.finditer(line):
                complaints.append(f"{path}:{number}: {match[0]!r}; write: {instead}")
    return complaints


def sentence_complaints(path: str, prose: str, first_line: int = 1) -> list[str]:
    """Complaints about sentences that are too long.

    A sentence ends with a period, question mark or exclamation mark, a list item or a paragraph.
    """
    complaints = []
    # Code, paths and formulas are one word each.
    prose = re.sub(r"```.*?```", "", prose, flags=re.DOTALL)
    prose = re.sub(r"`[^`]*`", "code", prose)
    for sentence in re.split(r"(?<=[.?!])\s+|\n\s*\n|\n\s*[-*|]\s|\n\s*\d+\.\s|\n\s*\w+: ", prose):
        words = re.findall(r"[A-Za-z][\w'-]*", sentence)
        if len(words) > MAX_WORDS:
            start = " ".join(words[:6])
            complaints.append(
                f"{path}:{first_line}: a sentence of {len(words)} words, at most {MAX_WORDS}:"
                f" {start} ..."
            )
    return complaints


def docstrings(text: str) -> list[tuple[int, str]]:
    """(line, docstring) of a module and of everything in it."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    found = [(getattr(node, "lineno", 1), ast.get_docstring(node)) for node in nodes]
    return [(line, docstring) for line, docstring in found if docstring]


def check(path: str, text: str) -> list[str]:
    """All complaints about one file."""
    complaints = word_complaints(path, text)
    if path.endswith(".py"):
        for line, docstring in docstrings(text):
            complaints += sentence_complaints(path, docstring, line)
    elif path.endswith(".md"):
        complaints += sentence_complaints(path, text)
    return complaints


def tracked_files() -> list[str]:
    """The files that are checked: Python files, pages and the Makefile."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [path for path in listed if path.endswith((".py", ".md", "Makefile"))]


def main(arguments: list[str]) -> int:
    """Prints the complaints about the given files and folders; returns the exit code."""
    paths = tracked_files()
    if arguments:
        inside = tuple(str(pathlib.Path(a)) for a in arguments)
        paths = [p for p in paths if p in inside or p.startswith(tuple(f"{a}/" for a in inside))]
    complaints = []
    for path in paths:
        if path not in _EXEMPT and (ROOT / path).is_file():
            complaints += check(path, (ROOT / path).read_text(encoding="utf-8"))
    sys.stdout.writelines(f"{line}\n" for line in complaints)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
