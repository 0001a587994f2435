"""Hooks of MkDocs: pages and pictures that lie elsewhere in the repository become part of the site, and links follow.

A link is written as it works in the repository. One to a file that is not part of the site becomes plain text.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
PICTURES = "Resources/Screenshots"
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "Resources/Models/default.md": "models/default.md",
    "Resources/Models/breakage.md": "models/breakage.md",
}
"""Path in the repository and in the site."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def in_site() -> dict[str, str]:
    """What the site has from outside docs/: path in the repository -> path in the site."""
    pictures = {f"{PICTURES}/{path.name}": f"images/{path.name}" for path in (ROOT / PICTURES).glob("*.png")}
    return PAGES | pictures


def on_files(files, config):
    """Add the files from outside docs/."""
    for source, target in in_site().items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Let the links of a page point to where their files are in the site."""
    here = page.file.src_uri
    source = {target: path for path, target in PAGES.items()}.get(here, f"docs/{here}")
    return with_links_of_site(markdown, source, here)


def with_links_of_site(markdown: str, source: str, here: str) -> str:
    """The text of the file ``source`` of the repository as the page ``here`` of the site."""
    outside = in_site()

    def replaced(link: re.Match) -> str:
        mark, text, target, anchor = link.groups()
        if re.match(r"[a-z]+:", target):
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        found = outside.get(path) or (path.removeprefix("docs/") if re.fullmatch(r"docs/[\w/-]+\.md", path) else None)
        if found is None:
            return text
        return f"{mark}[{text}]({posixpath.relpath(found, posixpath.dirname(here) or '.')}{anchor or ''})"

    return LINK.sub(replaced, markdown)
