"""Draw the extension's icon, a drop that holds segmented regions and their graph.

``python Testing/slicer/make_icon.py`` writes ``MSKD.png`` (128 x 128, for the catalogue) and the
module's icon (the same, in its Resources).
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ["QT_QPA_PLATFORM"] = "offscreen"

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import (
    QBrush,
    QColor,
    QGuiApplication,
    QImage,
    QLinearGradient,
    QPainter,
    QPainterPath,
    QPen,
    QPolygonF,
)

ROOT = Path(__file__).resolve().parents[2]
SIDE = 128
SUPERSAMPLING = 8
CENTRE = QPointF(64, 78)
REGIONS = [
    ("#f2a65a", [(64, 78), (-20, -20), (64, -20), (140, -20), (140, 66)]),
    ("#5fb49c", [(64, 78), (140, 66), (140, 160), (52, 160)]),
    ("#d96c75", [(64, 78), (52, 160), (-20, 160), (-20, -20)]),
]
NODES = [(74, 52), (82, 92), (45, 85)]


def drop() -> QPainterPath:
    """The outline: a circle of radius 36 about (64, 78) drawn out to a tip."""
    path = QPainterPath(QPointF(64, 12))
    path.cubicTo(QPointF(74, 32), QPointF(100, 54), QPointF(100, 78))
    path.cubicTo(QPointF(100, 98), QPointF(84, 114), QPointF(64, 114))
    path.cubicTo(QPointF(44, 114), QPointF(28, 98), QPointF(28, 78))
    path.cubicTo(QPointF(28, 54), QPointF(54, 32), QPointF(64, 12))
    return path


def draw(painter: QPainter) -> None:
    """The whole icon, in units of a 128-pixel square."""
    background = QLinearGradient(0, 0, 0, SIDE)
    background.setColorAt(0, QColor("#1d5a7a"))
    background.setColorAt(1, QColor("#0d2740"))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QBrush(background))
    painter.drawRoundedRect(QRectF(2, 2, 124, 124), 26, 26)

    painter.save()
    painter.setClipPath(drop())
    for color, corners in REGIONS:
        painter.setBrush(QColor(color))
        painter.drawPolygon(QPolygonF([QPointF(*corner) for corner in corners]))
    painter.setPen(QPen(QColor(255, 255, 255, 150), 2))
    for corner in [(64, -20), (140, 66), (52, 160)][1:]:
        painter.drawLine(CENTRE, QPointF(*corner))
    painter.drawLine(CENTRE, QPointF(-20, -20))
    painter.restore()

    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.setPen(QPen(QColor("white"), 5, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap, Qt.PenJoinStyle.RoundJoin))
    painter.drawPath(drop())

    painter.setPen(QPen(QColor("#0d2740"), 4, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
    painter.drawPolygon(QPolygonF([QPointF(*node) for node in NODES]))
    painter.setBrush(QColor("white"))
    for node in NODES:
        painter.drawEllipse(QPointF(*node), 6.5, 6.5)


def main() -> None:
    """Draw large, shrink, save."""
    application = QGuiApplication([])
    image = QImage(SIDE * SUPERSAMPLING, SIDE * SUPERSAMPLING, QImage.Format.Format_ARGB32_Premultiplied)
    image.fill(Qt.GlobalColor.transparent)
    painter = QPainter(image)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.scale(SUPERSAMPLING, SUPERSAMPLING)
    draw(painter)
    painter.end()
    mode = Qt.TransformationMode.SmoothTransformation
    small = image.scaled(SIDE, SIDE, Qt.AspectRatioMode.IgnoreAspectRatio, mode)
    for path in (ROOT / "MSKD.png", ROOT / "MSKDSegmentation" / "Resources" / "Icons" / "MSKDSegmentation.png"):
        if not small.save(str(path)):
            raise OSError(f"{path} cannot be written")
    application.quit()


if __name__ == "__main__":
    main()
