"""QR codes as SVG, without inline styles."""

from __future__ import annotations

from reportlab.graphics.barcode.qrencoder import QRCode, QRErrorCorrectLevel

QUIET_ZONE = 4
"""The light border that readers need, in modules."""


def svg(text: str) -> str:
    """Return a QR code of a text, dark on light whatever the page's colours are."""
    code = QRCode(None, QRErrorCorrectLevel.M)
    code.addData(text)
    code.make()
    side = code.moduleCount + 2 * QUIET_ZONE
    modules = "".join(
        f"M{column + QUIET_ZONE} {row + QUIET_ZONE}h1v1h-1z"
        for row in range(code.moduleCount)
        for column in range(code.moduleCount)
        if code.modules[row][column]
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}" role="img" aria-label="QR code"'
        f' shape-rendering="crispEdges"><path fill="#fff" d="M0 0h{side}v{side}H0z"/><path d="{modules}"/></svg>'
    )
