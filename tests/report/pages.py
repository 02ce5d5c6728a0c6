"""A page of the report, taken apart."""

from html.parser import HTMLParser

ALONE = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """What a page holds: ids, references, tables, text."""

    def __init__(self, html):
        super().__init__()
        self.ids, self.references, self.pictures = [], [], 0
        self.values = {}  # lists of numbers by the key of their row, and run if there are several
        self.words = []
        self.key = self.run = None
        self.open = []
        self.feed(html)
        self.close()
        assert self.open == [], "every element is closed"

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in ALONE:
            self.open.append(tag)
        self.pictures += tag == "svg"
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.references += [
            attributes[name] for name in ("src", "href", "xlink:href") if name in attributes
        ]
        self.key = attributes.get("data-key", self.key)
        self.run = attributes.get("data-run", self.run)
        if tag == "data":
            place = (self.key, self.run)
            self.values.setdefault(place, []).append(float(attributes["value"]))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("table", "section"):
            self.key = self.run = None

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)
