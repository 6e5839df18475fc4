"""Draws a usage report as PDF."""

from __future__ import annotations

import io
from xml.sax.saxutils import escape

from reportlab.graphics.charts.barcharts import HorizontalBarChart
from reportlab.graphics.shapes import Drawing
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from jobs.types.usage_report import Line, Report, totals

INK, MUTED, ACCENT, RULE = (colors.HexColor(code) for code in ("#1b1f3a", "#6b7090", "#4f46e5", "#e3e5f0"))
BUSIEST = 8
MARGIN = 18 * mm


def draw(report: Report) -> bytes:
    """Return the PDF document."""
    out = io.BytesIO()
    document = SimpleDocTemplate(
        out,
        pagesize=A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN,
        bottomMargin=MARGIN,
        title=f"Usage of {report.consumer}",
        author="apimgmt",
    )
    document.build([*_heading(report), *_figures(report), *_chart(report), *_table(report)])
    return out.getvalue()


def _style(name: str, size: float, colour: colors.Color, *, is_bold: bool = False) -> ParagraphStyle:
    return ParagraphStyle(
        name,
        parent=getSampleStyleSheet()["Normal"],
        fontName="Helvetica-Bold" if is_bold else "Helvetica",
        fontSize=size,
        leading=size * 1.35,
        textColor=colour,
    )


TITLE = _style("Title", 22, INK, is_bold=True)
SUBTITLE = _style("Subtitle", 10, MUTED)
HEADING = _style("Heading", 12, INK, is_bold=True)
FIGURE = _style("Figure", 16, ACCENT, is_bold=True)
BODY = _style("Body", 9, INK)


def _heading(report: Report) -> list[Flowable]:
    span = f"{report.since:%d %B %Y} to {report.until:%d %B %Y, %H:%M} UTC"
    return [
        Paragraph(f"Usage of {escape(report.consumer)}", TITLE),
        Spacer(1, 2 * mm),
        Paragraph(f"{report.period.capitalize()} report, {span}", SUBTITLE),
        Spacer(1, 8 * mm),
    ]


def _figures(report: Report) -> list[Flowable]:
    sums = totals(report.lines)
    cells = [
        ("Calls", f"{sums['calls']:,}"),
        ("Refused", f"{sums['refused']:,}"),
        ("Messages", f"{sums['messages_in'] + sums['messages_out']:,}"),
        ("Data", _size(sums["bytes_in"] + sums["bytes_out"])),
    ]
    table = Table(
        [[Paragraph(value, FIGURE) for _, value in cells], [Paragraph(name, SUBTITLE) for name, _ in cells]],
        colWidths="*",
    )
    return [table, Spacer(1, 8 * mm)]


def _chart(report: Report) -> list[Flowable]:
    busiest = [line for line in report.lines if line.calls + line.messages_in + line.messages_out][:BUSIEST]
    if not busiest:
        return [Paragraph("Nothing was used in this period.", BODY)]
    chart = HorizontalBarChart()
    chart.x, chart.y, chart.width, chart.height = 150, 10, 320, 18 * len(busiest)
    chart.data = [[line.calls + line.messages_in + line.messages_out for line in reversed(busiest)]]
    chart.categoryAxis.categoryNames = [_name(line) for line in reversed(busiest)]
    chart.categoryAxis.strokeColor = RULE
    chart.categoryAxis.labels.fontSize = chart.valueAxis.labels.fontSize = 8
    chart.categoryAxis.labels.fillColor = chart.valueAxis.labels.fillColor = INK
    chart.valueAxis.valueMin = 0
    chart.valueAxis.strokeColor = chart.valueAxis.gridStrokeColor = RULE
    chart.bars[0].fillColor, chart.bars[0].strokeColor = ACCENT, None
    drawing = Drawing(480, chart.height + 30)
    drawing.add(chart)
    return [Paragraph("Busiest routes and channels: calls and messages", HEADING), drawing, Spacer(1, 6 * mm)]


def _table(report: Report) -> list[Flowable]:
    head = ["Protocol", "Route or channel", "Calls", "Refused", "In", "Out", "Data"]
    rows = [
        [
            line.protocol,
            Paragraph(escape(line.target), BODY),
            f"{line.calls:,}",
            f"{line.refused:,}",
            f"{line.messages_in:,}",
            f"{line.messages_out:,}",
            _size(line.bytes_in + line.bytes_out),
        ]
        for line in report.lines
    ]
    table = Table(
        [head, *rows], colWidths=[20 * mm, 66 * mm, 18 * mm, 18 * mm, 16 * mm, 16 * mm, 20 * mm], repeatRows=1
    )
    table.setStyle(
        TableStyle(
            [
                ("FONT", (0, 0), (-1, 0), "Helvetica-Bold", 8),
                ("FONT", (0, 1), (-1, -1), "Helvetica", 8),
                ("TEXTCOLOR", (0, 0), (-1, 0), MUTED),
                ("ALIGN", (2, 0), (-1, -1), "RIGHT"),
                ("LINEBELOW", (0, 0), (-1, -1), 0.5, RULE),
                ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
            ]
        )
    )
    return [Paragraph("All routes and channels", HEADING), Spacer(1, 2 * mm), table] if rows else []


def _name(line: Line) -> str:
    name = f"{line.target} ({line.protocol})"
    return name if len(name) <= 30 else name[:29] + "…"


def _size(bytes_: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if bytes_ < 1024:
            return f"{bytes_:,.0f} {unit}" if unit == "B" else f"{bytes_:,.1f} {unit}"
        bytes_ /= 1024
    return f"{bytes_:,.1f} TiB"
