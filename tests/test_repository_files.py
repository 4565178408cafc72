"""Files that services read: the hosted check, the citation and the templates."""

import pathlib
import re
import tomllib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def make_targets(text):
    return set(re.findall(r"^([a-z-]+):", text, re.M))


def test_hosted_check_runs_what_ci_runs():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert True in workflow  # YAML 1.1 reads the key `on` so
    (job,) = workflow["jobs"].values()
    assert job["timeout-minutes"] <= 120
    commands = [step["run"] for step in job["steps"] if "run" in step]
    called = {command.split()[1] for command in commands if command.startswith("make ")}
    ours = set(re.findall(r"^quiet_make (\w+)$", (ROOT / ".ci/run").read_text(), re.M))
    assert ours <= called and len(ours) == 2
    assert called <= make_targets((ROOT / "Makefile").read_text())
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", action) for action in used)
    low, high = re.findall(r"3\.(\d+)", PROJECT["requires-python"])
    assert job["strategy"]["matrix"]["python"] == [f"3.{low}", f"3.{int(high) - 1}"]


def test_cache_of_the_hosted_check_depends_on_the_locks_that_are_installed():
    text = (ROOT / ".github/workflows/test.yml").read_text()
    (locks,) = re.findall(r"hashFiles\((.*?)\)", text)
    names = re.findall(r"'(requirements/\w+\.txt)'", locks)
    assert names == ["requirements/cpu.txt", "requirements/test.txt"]
    assert all((ROOT / name).is_file() for name in names)


def test_citation_agrees_with_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    required = {"cff-version", "message", "title", "authors"}
    optional = {"type", "abstract", "version", "license", "keywords"}
    assert required <= citation.keys() <= required | optional
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["title"] == PROJECT["name"]
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text()


def test_issue_templates_have_a_name_and_a_purpose():
    templates = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.md"))
    assert [path.stem for path in templates] == ["bug", "feature"]
    for path in templates:
        _, head, body = path.read_text().split("---\n", 2)
        assert {"name", "about"} <= yaml.safe_load(head).keys() and body.strip()
