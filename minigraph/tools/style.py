"""How pictures look: colours, fonts and shapes, as attributes of Graphviz."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    fill: str
    line: str
    word: str  # behind a layer's name: colours are not the only sign


# Blue, purple, orange and green of Okabe and Ito, which the colour-blind tell apart; the fills
# are light enough for print.
LOOKS = {
    "forward": Look("#DCEBF7", "#0072B2", ""),
    "statistic": Look("#F5E6F0", "#A8588A", "statistics"),
    "backward": Look("#FCE4D4", "#C24E00", "gradient"),
    "update": Look("#D9F0E6", "#00795A", "update"),
}


@dataclass(frozen=True)
class Mark:
    """How a box is drawn that differs between two graphs: a colour, an outline and a sign, each of which is enough."""

    sign: str
    word: str
    attributes: dict[str, str]


MARKS = {
    "went": Mark(
        "−", "went (red, dashed)", {"fillcolor": "#F8D7D3", "color": "#A3201A", "style": "rounded,filled,dashed"}
    ),
    "came": Mark("+", "came (green, bold)", {"fillcolor": "#CFEBD3", "color": "#12692D", "penwidth": "2.6"}),
    "changed": Mark(
        "≠", "changed in place (yellow, double)", {"fillcolor": "#FFF0C2", "color": "#8A6100", "peripheries": "2"}
    ),
}
FONT = "Helvetica,Arial,sans-serif"
GRAPH = {
    "rankdir": "TB",
    "newrank": "true",
    "nodesep": "0.22",
    "ranksep": "0.28",
    "fontname": FONT,
    "fontsize": "11",
    "labelloc": "t",
    "labeljust": "l",
    "margin": "0.15",
    "bgcolor": "white",
}
NODE = {
    "fontname": FONT,
    "fontsize": "10",
    "shape": "box",
    "style": "rounded,filled",
    "height": "0.3",
    "margin": "0.14,0.05",
}
EDGE = {"fontname": FONT, "fontsize": "8", "fontcolor": "#444444", "arrowsize": "0.55", "color": "#77735F"}
INPUT = {"fillcolor": "white", "color": "#222222", "class": "minigraph-port"}
OUTPUT = {"fillcolor": "#222222", "color": "#222222", "fontcolor": "white", "class": "minigraph-port"}
NOTE = {
    "shape": "note",
    "style": "filled",
    "fillcolor": "#FFFBE0",
    "color": "#B0A060",
    "fontsize": "8",
    "height": "0.2",
    "margin": "0.06,0.03",
}
STATE = {
    "shape": "cylinder",
    "style": "filled",
    "fillcolor": "#F3F1E7",
    "color": "#77735F",
    "fontsize": "8",
    "margin": "0.08,0.08",
}
FOOTNOTES = {"shape": "plaintext", "style": "", "fontsize": "9", "margin": "0.02"}
FRAME = {"style": "rounded", "color": "#8A8A8A", "labeljust": "l", "fontsize": "10", "margin": "9", "penwidth": "0.8"}
REPEAT = {**FRAME, "style": "rounded,dashed", "penwidth": "1.6"}
INVISIBLE = {"style": "invis"}
