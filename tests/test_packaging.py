"""What goes out with the package: the description, the version, the type marker and the files that are not code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import yaml

import r2seg

ROOT = Path(__file__).parents[1]


def test_the_description_has_no_link_that_leads_nowhere_outside_the_repository() -> None:
    command = [sys.executable, "setup.py", "--long-description"]
    description = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "Train, on any machine" in description
    links = re.findall(r"\]\(([^)]*)\)", description)
    assert links and all(link.startswith("https://") for link in links)


def test_version_changelog_and_citation_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    releases = re.findall(r"^## \[(\d[^\]]*)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), flags=re.M)
    assert (citation["version"], str(citation["date-released"])) == releases[0]
    assert r2seg.__version__ == releases[0][0]


def test_a_wheel_holds_the_type_marker_and_the_report_templates(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a build leaves folders behind, so not in the checkout
    shutil.copytree(ROOT / "r2seg", source / "r2seg", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "setup.py", "-q", "bdist_wheel", "--dist-dir", str(tmp_path)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    templates = {
        "r2seg/evaluation/templates/report.html.j2",
        "r2seg/data_check/templates/check.html.j2",
        "r2seg/pictures/templates/page.css",
    }
    assert {"r2seg/py.typed", "r2seg/__main__.py", *templates} <= names
