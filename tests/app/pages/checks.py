"""A strict reading of a page: balanced, closed, with nothing in it that could act."""

from html.parser import HTMLParser

VOID = {"meta", "br", "link", "img", "hr", "input"}
# What our templates use. A tag that is not here came from a name, or wants a reason.
TAGS = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "span", "b", "i", "br", "ul", "li", "nav",
    "a", "section", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "details", "summary", "pre",
    "code", "svg", "g", "line", "polyline", "circle", "rect", "text",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "name", "content", "class", "title", "style", "id", "href", "viewbox", "role", "aria-label", "x",
    "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "points", "transform", "text-anchor",
    "fill-opacity",
}  # fmt: skip


class Page(HTMLParser):
    """Reads a page and keeps its texts; anything unbalanced or foreign is an AssertionError."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.texts: list[str] = []
        self.titles: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        assert html.startswith("<!doctype html>")
        self.feed(html)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))
        assert set(self.targets) <= set(self.ids)

    @property
    def text(self) -> str:
        """Everything that is read, in order."""
        return " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        for name, value in attrs:
            assert name in ATTRIBUTES, (tag, name)
            if name == "title":
                self.titles.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                assert value is not None
                assert value.startswith("#")
                self.targets.append(value[1:])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            assert "<" not in data
            assert "url(" not in data
            assert "@import" not in data
        elif self.open and self.open[-1] == "title" and "svg" in self.open:
            self.titles.append(data)
        elif self.open:
            self.texts.append(data)
        else:
            assert not data.strip(), data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")
