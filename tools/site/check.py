"""Checks the built site: each public name has an entry, each local link leads somewhere, nothing is loaded.

python -m tools.site.check build/site        # `make docs` does it after the build; exit code 1 if something is wrong
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tools.site.names import public_names

# Attributes that a browser follows by itself to show a page, and those that a reader follows.
_LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}
_FOLLOWED = {("a", "href")}
# The elements that mkdocs and its theme write; any other is text such as "x_<i" that a browser would swallow.
_ELEMENTS = """
html head meta title link style script base body header footer main nav section article aside div span p a b i em strong
small sub sup code pre kbd br hr wbr ul ol li dl dt dd h1 h2 h3 h4 h5 h6 blockquote q table thead tbody tr th td caption
colgroup col img figure figcaption details summary form input label button textarea select option noscript iframe svg
path g circle rect line polyline polygon defs use del ins mark abbr dialog template
"""


class _Page(HTMLParser):
    """Collects the anchors, the links and the unknown elements of one page."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.loaded: set[str] = set()
        self.followed: set[str] = set()
        self.unknown: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Reads one element."""
        if tag not in _ELEMENTS.split():
            self.unknown.add(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            # A canonical address or a link to another page of the site names a place and loads nothing.
            if (tag, name) in _LOADED and value and not (tag == "link" and dict(attrs).get("rel") in ("next", "prev")):
                self.loaded.add(value)
            if (tag, name) in _FOLLOWED and value:
                self.followed.add(value)


def faults(site: Path, names: list[str]) -> list[str]:
    """Returns what is wrong with a site, a line each.

    Args:
        site: the folder of the built site.
        names: dotted names that must have an entry in the API reference.
    """
    pages = {path.relative_to(site).as_posix(): _Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    entries = {anchor for path, page in pages.items() if path.startswith("api/") for anchor in page.anchors}
    found = [f"{name} has no entry in the API reference" for name in names if name not in entries]
    for path, page in pages.items():
        found += [f"{path} has the element <{tag}>: write &lt; in its text" for tag in sorted(page.unknown)]
        outside = sorted(link for link in page.loaded if urlsplit(link).netloc)
        found += [f"{path} loads {link} from outside" for link in outside]
        for link in sorted((page.loaded | page.followed) - set(outside)):
            if (
                not urlsplit(link).scheme
                and not urlsplit(link).netloc
                and not _leads_somewhere(link, path, site, pages)
            ):
                found.append(f"{path} links to {link}, which does not exist")
    return found


def _leads_somewhere(link: str, path: str, site: Path, pages: dict[str, _Page]) -> bool:
    parts = urlsplit(link)
    target = ((site / path).parent / unquote(parts.path)).resolve() if parts.path else site / path
    if path == "404.html" and parts.path.startswith("/"):
        target = site / unquote(parts.path).lstrip("/")
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return False
    page = pages.get(target.relative_to(site.resolve()).as_posix() if target.is_absolute() else str(target))
    return not parts.fragment or page is None or unquote(parts.fragment) in page.anchors | {"__top", "top"}


if __name__ == "__main__":
    broken = faults(Path(sys.argv[1]).resolve(), public_names())
    print("\n".join(broken) or f"{sys.argv[1]}: {len(public_names())} public names, no broken link")
    sys.exit(1 if broken else 0)
