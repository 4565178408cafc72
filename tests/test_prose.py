"""Tests of the English checker: every rule reports a text that breaks it."""

import pathlib
import subprocess
import sys

import pytest

from tests import prose

# A match of each rule, in the order of `prose.WORDS`.
EXAMPLES = [
    *("hitherto", "amid", "Anew", "beside", "but for", "deals out", "every so many"),
    *("figures of merit", "heeded", "went on", "hinders", "judgments", "mended", "nobody"),
    *("None of", "of its own", "so many", "surest", "unheard", "hence", "whoever", "wishes"),
    *("behaviour", "cancelled", "centred", "coloured", "favourite", "greyscale", "initialises"),
    *("labelled", "licence", "modelling", "neighbours", "normalised", "optimiser", "quantise"),
    *("recognised", "serialisation", "standardise", "summarises", "SYNCHRONISED"),
]
SHORT = " ".join(["word"] * (prose.MAX_WORDS // 2 + 1))
LONGEST = " ".join(["word"] * prose.MAX_WORDS)
TOO_LONG = f"{LONGEST} word"


@pytest.mark.parametrize(("rule", "word"), list(zip(prose.WORDS, EXAMPLES, strict=True)))
def test_every_banned_word_is_reported(rule, word):
    complaints = prose.word_complaints("a.py", f"first line\nThe {word}, and more.\n")
    assert f"a.py:2: {word!r}; write: {prose.WORDS[rule]}" in complaints


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("nobody = 1", "nobody"),
        ("def judge_images(): pass", "judge"),
        ("def test_file_is_mended(): pass", "mended"),
        ("IS_NORMALISED = True", "NORMALISED"),
        ("x = 1  # Whoever calls this", "Whoever"),
        ('raise ValueError("the colour is wrong")', "colour"),
        ('"""The neighbours of a pixel."""', "neighbours"),
    ],
)
def test_banned_word_is_reported_in_names_comments_and_strings(code, word):
    (complaint,) = prose.check("a.py", f"{code}\n")
    assert complaint.startswith(f"a.py:1: {word!r}; write: ")


@pytest.mark.parametrize("text", ["recommend", "amends", "besides", "thenceforth", "judgeless"])
def test_banned_word_inside_another_word_is_accepted(text):
    assert prose.word_complaints("a.py", text) == []


def test_each_banned_word_of_a_text_is_reported():
    complaints = prose.word_complaints("a.md", "We mend it and mend it.\nFine.\nAnew.")
    assert [complaint.split(";")[0] for complaint in complaints] == [
        "a.md:1: 'mend'",
        "a.md:1: 'mend'",
        "a.md:3: 'Anew'",
    ]


def test_long_sentence_in_docstring_is_reported():
    code = f'def f():\n    pass\n\n\ndef g():\n    """{TOO_LONG}."""\n'
    assert prose.check("a.py", code) == [
        f"a.py:5: a sentence of {prose.MAX_WORDS + 1} words, at most {prose.MAX_WORDS}:"
        " word word word word word word ..."
    ]


@pytest.mark.parametrize(
    "code",
    [
        f'"""{TOO_LONG}."""\n',
        f'class A:\n    """{TOO_LONG}."""\n',
        f'async def f():\n    """Short.\n\n    {TOO_LONG}.\n    """\n',
    ],
)
def test_docstrings_of_modules_classes_and_functions_are_checked(code):
    (complaint,) = prose.check("a.py", code)
    assert complaint.startswith("a.py:1: a sentence of ")


def test_long_sentence_on_a_page_is_reported():
    (complaint,) = prose.check("a.md", f"# Title\n\nShort. {TOO_LONG}!\n")
    assert complaint.startswith("a.md:1: a sentence of ")


def test_comments_and_strings_have_no_sentence_limit():
    assert prose.check("a.py", f"# {TOO_LONG}\nx = '{TOO_LONG}'\n") == []
    assert prose.check("Makefile", f"# {TOO_LONG}\n") == []


def test_sentence_of_exactly_the_limit_is_accepted():
    assert prose.sentence_complaints("a.md", f"{LONGEST}.") == []
    assert prose.sentence_complaints("a.md", f"{LONGEST} more.") != []


@pytest.mark.parametrize(
    "separator", [". ", "? ", "! ", "\n\n", "\n- ", "\n* ", "\n  - ", "\n2. ", "\n| ", "\n  name: "]
)
def test_sentence_ends_at_punctuation_paragraph_or_list_item(separator):
    assert prose.sentence_complaints("a.md", f"{SHORT}{separator}{SHORT}.") == []
    assert len(prose.sentence_complaints("a.md", f"{SHORT}, {SHORT}.")) == 1


def test_code_block_is_not_a_sentence():
    assert prose.sentence_complaints("a.md", f"Run:\n\n```sh\n{TOO_LONG}\n```\n\nDone.") == []


def test_code_in_backticks_is_one_word():
    code = f"`{TOO_LONG}`"
    assert prose.sentence_complaints("a.md", f"{code} and {code}.") == []
    assert prose.sentence_complaints("a.md", f"{' '.join([code] * (prose.MAX_WORDS + 1))}.") != []


def test_numbers_are_not_words():
    assert prose.sentence_complaints("a.md", f"Sizes: {'224, ' * 99} and more.") == []


def test_command_checks_tracked_python_files_and_pages(tmp_path):
    """The command runs in a repository with a copy of the checker."""
    files = {
        "good.py": '"""Good."""\n',
        "pages/bad.py": '"""A colour."""\n',
        "Makefile": "# Made anew.\n",
        "docs/notes.md": "Nobody checks this page.\n",
        "LICENSE": "Whoever.\n",
        "notes.txt": "Whoever.\n",
        "tests/prose.py": pathlib.Path(prose.__file__).read_text(),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for words in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    (tmp_path / "untracked.py").write_text("nobody = 1\n")

    def run(*paths):
        command = [sys.executable, "-m", "tests.prose", *paths]
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert process.stderr == ""
        return process.returncode, process.stdout.splitlines()

    makefile = "Makefile:1: 'anew'; write: again"
    bad = "pages/bad.py:1: 'colour'; write: color"
    page = "docs/notes.md:1: 'Nobody'; write: no one, nothing, or name the actor"
    assert run() == (1, [makefile, page, bad])
    assert run("pages") == run("pages/bad.py") == (1, [bad])
    assert run("good.py") == (0, [])
