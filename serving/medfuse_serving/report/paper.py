"""Paragraphs, tables and pictures in; the pages of a PDF out, the same bytes for the same calls."""

import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from xml.sax.saxutils import escape

import matplotlib
import pylopdf_fonts_zh_cn
import segno
from fpdf import FPDF
from fpdf.enums import MethodReturnValue, TableBordersLayout, WrapMode, XPos, YPos
from fpdf.fonts import FontFace, TTFFont
from PIL import Image

from medfuse.errors import ReportError

MARGIN = 16.0
"""Millimetres, as all lengths here."""

MOST_PAGES = 300
BODY, SMALL, TINY = 9.5, 8.0, 6.5
INK, GREY, RULE, SHADE = (20, 28, 38), (92, 102, 114), (190, 198, 206), (241, 244, 247)
ACCENT, ALARM = (22, 78, 130), (160, 42, 20)

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
"""Stands for a character that neither font has."""

PADDING = (0.7, 1.2)
"""Of a table's cells, above and below and at the sides."""

TOGETHER = 10
"""Rows of a table that is not begun where they don't fit on the page."""

HEADING = 11.0
"""Most height of a section's heading."""

_CHINESE = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"
_PIECES = re.compile(
    rf"\s*[（“《【「]*(?:[{_CHINESE}]|[^\s{_CHINESE}（“《【「]+)[，。；：、！？）”》】」%]*"
)
"""What stays on one line: a word, or a character of a script without spaces and its punctuation."""

_XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/">
  <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
      xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
      xmlns:pdfaid="http://www.aiim.org/pdfa/ns/id/">
    <rdf:Description rdf:about="" xmp:CreatorTool="medfuse" xmp:CreateDate="{time}">
      <pdfaid:part>3</pdfaid:part>
      <pdfaid:conformance>U</pdfaid:conformance>
      <dc:title><rdf:Alt><rdf:li xml:lang="x-default">{title}</rdf:li></rdf:Alt></dc:title>
    </rdf:Description>
  </rdf:RDF>
</x:xmpmeta>"""
"""A PDF/A file's metadata."""

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Kinds of characters that are not seen, or make others be read in another order."""


class Paper(FPDF):
    """An A4 document for archives (PDF/A-3u), with a foot on each page; to be closed.

    It is a class since fpdf2 asks the foot of one.
    """

    def __init__(self, *, title: str, tag: str, made_at: datetime, foot: Sequence[str]) -> None:
        """Open a document without a page.

        Args:
            title: In its metadata, so without anything of the study.
            tag: Of its language.
            made_at: Written as its time.
            foot: Lines at the foot of each page; the last has ``{page}`` and ``{pages}``.
        """
        super().__init__(format="A4", unit="mm", enforce_compliance="PDF/A-3U")
        self._foot = foot
        self._heading: tuple[str, float] | None = None
        self.set_title(title)
        self.set_lang(tag)
        self.set_creator("medfuse")
        self.set_creation_date(made_at)
        # fpdf2's own would have the time of day in it.
        self.set_xmp_metadata(_XMP.format(title=escape(title), time=made_at.isoformat()))
        self.set_margins(MARGIN, MARGIN, MARGIN)
        self.c_margin = 0.0
        self.set_auto_page_break(auto=True, margin=MARGIN + 8)
        fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        self.add_font("text", fname=pylopdf_fonts_zh_cn.sans_path())
        self.add_font("more", fname=fonts / "DejaVuSans.ttf")
        self.set_fallback_fonts(["more"])
        self._known = {code for font in self._opened() for code in font.cmap}
        self.use(BODY)
        self.add_page()

    def close(self) -> None:
        """Close the fonts' files, which fpdf2 does at a document's end alone."""
        for font in self._opened():
            font.close()

    def _opened(self) -> list[TTFFont]:
        return [font for font in self.fonts.values() if isinstance(font, TTFFont)]

    def use(self, size: float, colour: tuple[int, int, int] = INK) -> None:
        """Write on in a size and a colour."""
        self.set_font("text", size=size)
        self.set_text_color(*colour)

    def footer(self) -> None:
        """Write the foot of a page, as fpdf2 asks for at its end."""
        if self.page_no() > MOST_PAGES:
            raise ReportError(f"a report would have more than {MOST_PAGES} pages")
        self.set_y(-MARGIN - 2)
        self.set_draw_color(*RULE)
        self.line(MARGIN, self.get_y() - 1, self.w - MARGIN, self.get_y() - 1)
        self.use(TINY, GREY)
        for line in self._foot:
            text = line.format(page=self.page_no(), pages=self.str_alias_nb_pages)
            self.cell(
                0, 3.2, " ".join(self.printable(text).split()), new_x=XPos.LMARGIN, new_y=YPos.NEXT
            )

    def printable(self, text: str) -> str:
        """Give what can be shown of a text: line breaks stay, what is not seen goes."""
        text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ")
        return "".join(
            c if c == "\n" or ord(c) in self._known else UNKNOWN
            for c in text
            if c == "\n" or unicodedata.category(c) not in _HIDDEN
        )

    def wrap(self, text: str, width: float) -> str:
        """Break lines of Chinese, which fpdf2 breaks at spaces alone, where they are full.

        Args:
            text: Printable, in the size that is in use.
            width: Of a line.
        """
        if not re.search(f"[{_CHINESE}]", text):
            return text
        lines = []
        for line in text.split("\n"):
            filled, at = "", 0.0
            for piece in _PIECES.findall(line):
                wide = self.get_string_width(piece)
                if filled and at + wide > width:
                    lines.append(filled)
                    piece = piece.lstrip()
                    filled, at = "", 0.0
                filled, at = filled + piece, at + wide
            lines.append(filled)
        return "\n".join(lines)

    def heading(self, text: str, size: float = 13.0) -> None:
        """Begin a section: its heading is written with what comes next, on the same page."""
        self._heading = (self.printable(text), size)

    def _write_heading(self, text: str, size: float) -> None:
        if self.get_y() > MARGIN + 1:
            self.ln(3.5)
        self.use(size, ACCENT)
        self.multi_cell(0, size * 0.5, text, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.ln(0.8)
        self.use(BODY)

    def paragraph(
        self, text: str, size: float = BODY, colour: tuple[int, int, int] = INK, width: float = 0.0
    ) -> None:
        """Write text over the page's width, or a given one."""
        self._begin()
        self.use(size, colour)
        room = (width or self.w - self.r_margin - self.get_x()) - 2 * self.c_margin
        self.multi_cell(
            width,
            size * 0.5,
            self.wrap(self.printable(text), room),
            align="L",
            new_x=XPos.LMARGIN,
            new_y=YPos.NEXT,
        )
        self.ln(0.8)
        self.use(BODY)

    def _measure(self, cells: Sequence[str], room: Sequence[float], line: float) -> float:
        """Give a table's row its height."""
        most = 1
        for text, width in zip(cells, room, strict=True):
            lines = self.multi_cell(width, line, text, dry_run=True, output=MethodReturnValue.LINES)
            assert isinstance(lines, list)
            most = max(most, len(lines))
        return most * line + 2 * PADDING[0]

    @contextmanager
    def box(self, colour: tuple[int, int, int]) -> Iterator[None]:
        """Put a thick line at the left of what is written inside."""
        self.keep(28.0)
        page, top = self.page, self.get_y()
        self.set_left_margin(MARGIN + 4)
        self.set_x(MARGIN + 4)
        yield
        self.set_left_margin(MARGIN)
        self.set_x(MARGIN)
        self.set_draw_color(*colour)
        self.set_line_width(1.2)
        start = top if self.page == page else MARGIN
        self.line(MARGIN + 1, start, MARGIN + 1, self.get_y())
        self.set_line_width(0.2)
        self.ln(3.0)

    def rows(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        widths: Sequence[float | int],
        *,
        right: Sequence[int] = (),
        size: float = BODY,
    ) -> None:
        """Write a table whose head is repeated on each page.

        Args:
            head: Of each column; none for a table without a head.
            rows: Text of each cell.
            widths: Of the columns, in any unit.
            right: Columns of numbers.
            size: Of the text.
        """
        self.use(size)
        self.set_draw_color(*RULE)
        whole = self.w - self.l_margin - self.r_margin
        room = [whole * w / sum(widths) - 2 * PADDING[1] - 0.5 for w in widths]
        cells = [
            [self.wrap(self.printable(cell), width) for cell, width in zip(row, room, strict=True)]
            for row in [*([head] if head else []), *rows]
        ]
        self.keep(sum(self._measure(row, room, size * 0.5) for row in cells[:TOGETHER]))
        self.use(size)  # a heading may have been written
        aligned = tuple("RIGHT" if i in right else "LEFT" for i in range(len(widths)))
        with self.table(
            first_row_as_headings=bool(head),
            headings_style=FontFace(color=GREY, fill_color=SHADE),
            borders_layout=TableBordersLayout.HORIZONTAL_LINES,
            col_widths=tuple(widths),
            text_align=aligned,
            line_height=size * 0.5,
            padding=PADDING,
            wrapmode=WrapMode.WORD,
            width=whole,
        ) as table:
            for texts in cells:
                row = table.row()
                for text in texts:
                    row.cell(text)
        self.ln(1.5)
        self.use(BODY)

    def keep(self, height: float) -> None:
        """Go on to the next page unless there is so much room on this one.

        A heading that waits takes room too, and is written.
        """
        waiting, self._heading = self._heading, None
        if self.will_page_break(height + (HEADING if waiting else 0.0)):
            self.add_page()
        if waiting is not None:
            self._write_heading(*waiting)

    def _begin(self) -> None:
        """Write a heading that waits, with room for a few lines below it."""
        if self._heading is not None:
            self.keep(30.0 - HEADING)

    def flow(self, text: str, mark: str = "", colour: tuple[int, int, int] = INK) -> None:
        """Write on in the same paragraph, a word whole on one line where it can be.

        Args:
            text: With its spaces and line breaks.
            mark: Written small after it, and the text underlined, where there is one.
            colour: Of the text or of its mark.
        """
        self._begin()
        height = BODY * 0.52
        for piece in re.findall(r"\n|[^\S\n]+|\S+", self.printable(text)):
            if piece == "\n":
                self.ln(height)
                continue
            self.use(TINY)
            wide = self.get_string_width(mark) if mark else 0.0
            self.use(BODY, INK if mark else colour)
            wide += self.get_string_width(piece)
            right = self.w - self.r_margin
            if self.x + wide > right and self.x > self.l_margin:
                self.ln(height)
                if not piece.strip():
                    continue
            self.set_font(style="U" if mark else "")
            self.write(height, piece, wrapmode=WrapMode.CHAR)
            self.set_font(style="")
        if mark:
            self.use(TINY, colour)
            self.write(height, mark)
        self.use(BODY)

    def code(self, text: str, x: float, y: float, side: float, described: str) -> None:
        """Draw a QR code."""
        picture = io.BytesIO()
        segno.make(text, error="m", micro=False).save(picture, kind="png", scale=8, border=2)
        with Image.open(picture) as drawn:
            self.image(drawn.convert("L"), x=x, y=y, w=side, h=side, alt_text=described)

    def picture(
        self, png: bytes, place: tuple[float, float, float, float], described: str = ""
    ) -> None:
        """Draw a picture.

        Args:
            png: The picture.
            place: Its left, top, width and height.
            described: In words, for those who can't see it; empty for what lies over another.
        """
        x, y, width, height = place
        with Image.open(io.BytesIO(png)) as drawn:
            self.image(drawn, x=x, y=y, w=width, h=height, alt_text=described or None)

    def lines(
        self,
        points: Sequence[tuple[float, float]],
        place: tuple[float, float, float, float],
        size: tuple[int, int],
        *,
        solid: bool,
    ) -> None:
        """Draw a closed white line on a black one over a picture, both seen on any ground.

        Args:
            points: In pixels of the picture.
            place: Of the picture, as in `picture`.
            size: Its width and height in pixels.
            solid: Or else dashed.
        """
        x, y, width, height = place
        placed = [(x + a * width / size[0], y + b * height / size[1]) for a, b in points]
        for colour, wide in (((0, 0, 0), 0.45), ((255, 255, 255), 0.2)):
            self.set_draw_color(*colour)
            self.set_line_width(wide)
            if not solid and colour != (0, 0, 0):
                self.set_dash_pattern(dash=0.9, gap=0.6)
            self.polyline(placed, polygon=True)
        self.set_dash_pattern()
        self.set_line_width(0.2)

    def label(
        self, text: str, x: float, y: float, within: tuple[float, float, float, float]
    ) -> None:
        """Write a number in white on black, its middle at a place but inside a picture."""
        self.use(TINY, (255, 255, 255))
        width, height = self.get_string_width(text) + 1.0, 2.6
        left, top, wide, high = within
        x = min(max(x - width / 2, left), left + wide - width)
        y = min(max(y, top), top + high - height)
        self.set_fill_color(0, 0, 0)
        self.rect(x, y, width, height, style="F")
        self.set_xy(x, y)
        self.cell(width, height, text, align="C")
        self.use(BODY)
