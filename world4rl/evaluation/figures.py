"""The report's charts as plain inline SVG.

Colours are CSS classes, so one drawing serves a light and a dark page. Bars and gains are laid out in percent of the
width, so that their text stays readable on a phone; curves are small panels that the page arranges side by side.
Equal inputs give equal bytes: no ids, no clock, no font of this machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from matplotlib.ticker import LogLocator, MaxNLocator

from world4rl.evaluation.statistics import Bounds, ReliabilityBin

WIDTH, HEIGHT = 360, 220  # of a panel, in CSS pixels
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 38
MOST_POINTS = 240  # a curve of a panel's width shows no more


@dataclass(frozen=True)
class Series:
    """One curve of a panel.

    Attributes:
        name: What the legend calls it.
        x: Horizontal positions, ascending.
        y: Values, as many; NaN where there is none.
        role: CSS class that colours it: `bc`, `refined`, `imagined`, `real` or `plain`.
        dashed: Whether the line is dashed (a second sign beside colour).
        smooth: Whether to draw a running median over the faint raw curve.
        markers: Whether each value gets a dot.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    role: str = "plain"
    dashed: bool = False
    smooth: bool = False
    markers: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line of reference across a panel; the legend names it."""

    y: float
    name: str
    role: str = "plain"


@dataclass(frozen=True)
class GainRow:
    """One line of the gain chart, in points."""

    name: str
    gain: float
    interval: Bounds
    overall: bool = False


def number(value: float, digits: int = 2) -> str:
    """A figure for people: `digits` significant ones, no trailing zeros, no exponent between 1e-4 and 1e6."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4 or magnitude >= 6:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e")
    text = f"{value:.{max(digits - 1 - magnitude, 0)}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def percent(rate: float, digits: int = 0) -> str:
    """A rate in [0, 1] in percent, with at most `digits` decimals; one that only rounds to 0 or 100 keeps one."""
    text = _decimals(100 * rate, digits)
    if text in ("0", "100") and rate not in (0, 1):
        text = f"{100 * rate:.1f}"
    return f"{text}\u00a0%"


def points(value: float, digits: int = 0) -> str:
    """A gain in percentage points with its sign, with at most `digits` decimals."""
    text = _decimals(abs(value), digits)
    return f"{'±' if text == '0' else '+' if value > 0 else '−'}{text}"


def _decimals(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def rate_bar(
    rate: float, interval: Bounds | None, role: str, description: str, *, imagined: float | None = None,
    bound: float | None = None
) -> Markup:  # fmt: skip
    """A bar from 0 to 100 % with its interval.

    Args:
        rate: In [0, 1].
        interval: Drawn as a whisker; in [0, 1].
        role: CSS class that colours the bar.
        description: What a screen reader says.
        imagined: Drawn as a diamond.
        bound: Drawn as a dashed vertical line: what the rate should reach.
    """
    parts = [
        '<rect class="track" x="0" y="5" width="100%" height="16" rx="3"/>',
        f'<rect class="fill {role}" x="0" y="5" width="{100 * rate:.2f}%" height="16" rx="3"/>',
    ]
    if bound is not None:
        parts.append(f'<line class="bound" x1="{100 * bound:.2f}%" x2="{100 * bound:.2f}%" y1="0" y2="26"/>')
    if interval is not None:
        low, high = (f"{100 * value:.2f}%" for value in interval)
        for style in ("whisker halo", "whisker"):
            parts.append(f'<line class="{style}" x1="{low}" x2="{high}" y1="13" y2="13"/>')
            parts.extend(f'<line class="{style}" x1="{end}" x2="{end}" y1="8.5" y2="17.5"/>' for end in (low, high))
    if imagined is not None:
        parts.append(
            f'<svg x="{100 * imagined:.2f}%" y="13" overflow="visible">'
            '<path class="diamond" d="M0-8 7 0 0 8-7 0Z"/></svg>'
        )
    return _drawing("bar", 'width="100%" height="26"', description, parts)


def gain_chart(rows: Sequence[GainRow], description: str) -> Markup:
    """Gains with intervals around a line at zero, a row each, with an axis in points below."""
    low = min([-10.0, *(row.interval[0] for row in rows)])
    high = max([10.0, *(row.interval[1] for row in rows)])
    ticks = MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(low, high)
    low, high = min(low, float(ticks[0])), max(high, float(ticks[-1]))

    def at(value: float) -> str:
        return f"{2 + 96 * (value - low) / (high - low):.2f}%"

    grid = "".join(
        f'<line class="{"zero" if tick == 0 else "grid"}" x1="{at(tick)}" x2="{at(tick)}" y1="0" y2="100%"/>'
        for tick in ticks
    )
    parts = []
    for row in rows:
        role = "overall" if row.overall else "refined"
        ends = at(row.interval[0]), at(row.interval[1])
        said = f"({points(row.interval[0])} to {points(row.interval[1])})"
        line = [f'<line class="interval {role}" x1="{ends[0]}" x2="{ends[1]}" y1="11" y2="11"/>']
        line += [f'<line class="interval {role}" x1="{end}" x2="{end}" y1="6" y2="16"/>' for end in ends]
        line.append(
            f'<svg x="{at(row.gain)}" y="11" overflow="visible"><path class="mark {role}" d="M0-8 8 0 0 8-8 0Z"/></svg>'
            if row.overall
            else f'<circle class="mark {role}" cx="{at(row.gain)}" cy="11" r="6"/>'
        )
        parts.append(
            f'<div class="row"><div class="spread"><span>{escape(row.name)}</span><span><b>{points(row.gain, 1)}</b> '
            f'points <span class="soft">{said}</span></span></div>'
            f'<svg width="100%" height="22" aria-hidden="true">{grid}{"".join(line)}</svg></div>'
        )
    labels = "".join(
        f'<text class="tick" x="{at(tick)}" y="14" text-anchor="middle">{points(float(tick)) if tick else "no change"}'
        "</text>"
        for tick in ticks
    )
    axis = f'<svg width="100%" height="18" aria-hidden="true">{labels}</svg>'
    return Markup(f'<div role="group" aria-label="{escape(description)}">{"".join(parts)}{axis}</div>')


def line_chart(
    series: Sequence[Series], *, x_label: str, y_label: str, description: str, log: bool = False,
    y_range: Bounds | None = None, levels: Sequence[Level] = (), as_percent: bool = False, ticks_at_x: bool = False
) -> Markup:  # fmt: skip
    """Curves in one panel.

    Args:
        series: The curves; values that are NaN break a line.
        x_label: Below the axis.
        y_label: Above the axis.
        description: What a screen reader says.
        log: Whether the vertical axis is logarithmic; values <= 0 are then left out.
        y_range: Vertical range; from the values when None.
        levels: Horizontal lines of reference.
        as_percent: Whether values are rates to be labelled in percent.
        ticks_at_x: Whether the horizontal ticks are the curves' own positions.
    """
    curves = [_prepared(each, log) for each in series]
    everything = np.concatenate([y for _, y, _ in curves] + [np.array([level.y for level in levels], dtype=float)])
    everything = everything[np.isfinite(everything)]
    positions = np.concatenate([x for x, _, _ in curves])
    if not everything.size or not positions.size:
        return Markup('<p class="note">Nothing to draw: no value was recorded.</p>')
    left, right = float(positions.min()), float(positions.max())
    if ticks_at_x:
        margin = 0.06 * (right - left)
        left, right = left - margin, right + margin
    if y_range is None:
        y_range = _range(everything, log)
    y_ticks = _log_ticks(y_range) if log else _linear_ticks(y_range)
    panel = _Panel(left, right if right > left else left + 1, *y_range, log)
    parts = []
    for tick in y_ticks:
        label = percent(tick, 1) if as_percent else number(tick, 3)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{panel.y(tick)}" y2="{panel.y(tick)}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 5}" y="{panel.y(tick, 4)}" text-anchor="end">{label}</text>')
    x_ticks = sorted(set(positions.tolist())) if ticks_at_x else _linear_ticks((left, right), whole=True)
    for tick in x_ticks:
        parts.append(
            f'<text class="tick" x="{panel.x(tick)}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">'
            f"{number(tick, 6)}</text>"
        )
    parts.append(_x_label(x_label))
    parts.append(f'<text class="axis" x="{LEFT}" y="{TOP - 9}">{escape(y_label)}</text>' if y_label else "")
    for level in levels:
        height = panel.y(level.y)
        parts.append(f'<line class="level {level.role}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height}" y2="{height}"/>')
    for each, (x, y, smoothed) in zip(series, curves, strict=True):
        style = f"curve {each.role}{' dashed' if each.dashed else ''}"
        if smoothed is not None:
            parts.append(f'<path class="curve faint {each.role}" d="{panel.path(x, y)}"/>')
            parts.append(f'<path class="{style}" d="{panel.path(x, smoothed)}"/>')
        else:
            parts.append(f'<path class="{style}" d="{panel.path(x, y)}"/>')
        if each.markers or int(np.isfinite(y).sum()) == 1:
            parts.extend(
                f'<circle class="dot {each.role}" cx="{panel.x(a)}" cy="{panel.y(b)}" r="4"/>'
                for a, b in zip(x.tolist(), y.tolist(), strict=True)
                if math.isfinite(b)
            )
    return _drawing("panel", f'viewBox="0 -12 {WIDTH} {HEIGHT + 12}"', description, parts)


def reliability_chart(bins: Sequence[ReliabilityBin], description: str) -> Markup:
    """Predicted probability against what happened; a dot's area grows with the logarithm of its frames."""
    panel = _Panel(0, 1, 0, 1, False)
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{panel.y(tick)}" y2="{panel.y(tick)}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 5}" y="{panel.y(tick, 4)}" text-anchor="end">{percent(tick)}</text>'
        )
        if tick:  # the corner has its 0 already
            parts.append(
                f'<text class="tick" x="{panel.x(tick)}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">'
                f"{percent(tick)}</text>"
            )
    parts.append(f'<line class="level plain" x1="{panel.x(0)}" y1="{panel.y(0)}" x2="{panel.x(1)}" y2="{panel.y(1)}"/>')
    filled = [each for each in bins if each.confidence is not None and each.frequency is not None]
    most = max((each.count for each in filled), default=1)
    for each in filled:
        assert each.confidence is not None
        assert each.frequency is not None
        radius = 3 + 8 * math.sqrt(math.log1p(each.count) / math.log1p(most))
        parts.append(
            f'<line class="gap" x1="{panel.x(each.confidence)}" x2="{panel.x(each.confidence)}" '
            f'y1="{panel.y(each.confidence)}" y2="{panel.y(each.frequency)}"/>'
            f'<circle class="dot refined soft" cx="{panel.x(each.confidence)}" cy="{panel.y(each.frequency)}" '
            f'r="{radius:.1f}"><title>{each.count} frames: said {percent(each.confidence)}, '
            f"came true {percent(each.frequency)}</title></circle>"
        )
    parts.append(_x_label("what the classifier said"))
    parts.append(f'<text class="axis" x="{LEFT}" y="{TOP - 9}">how often it was a success</text>')
    return _drawing("panel", f'viewBox="0 -12 {WIDTH} {HEIGHT + 12}"', description, parts)


@dataclass(frozen=True)
class _Panel:
    """Maps values to the pixels of a panel."""

    left: float
    right: float
    low: float
    high: float
    log: bool

    def x(self, value: float) -> str:
        share = (value - self.left) / (self.right - self.left)
        return f"{LEFT + share * (WIDTH - LEFT - RIGHT):.1f}"

    def y(self, value: float, shift: float = 0) -> str:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        share = ((math.log(value) if self.log else value) - low) / (high - low)
        share = min(max(share, 0.0), 1.0)
        return f"{HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM) + shift:.1f}"

    def path(self, x: np.ndarray, y: np.ndarray) -> str:
        """An SVG path that lifts the pen where a value is missing."""
        drawing, pen_up = [], True
        for a, b in zip(x.tolist(), y.tolist(), strict=True):
            if math.isfinite(b):
                drawing.append(f"{'M' if pen_up else 'L'}{self.x(a)} {self.y(b)}")
            pen_up = not math.isfinite(b)
        return "".join(drawing)


def _prepared(series: Series, log: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Positions, values and the running median of a curve, thinned to what a panel can show."""
    x, y = np.asarray(series.x, dtype=float), np.asarray(series.y, dtype=float)
    y = np.where(y > 0, y, np.nan) if log else y
    if not series.smooth:  # a curve logged at some of the steps only is one curve, not crumbs
        x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    smoothed = _running_median(y, max(len(y) // 25, 1)) if series.smooth and len(y) >= 20 else None
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).round().astype(int)) if len(x) else []
    return x[keep], y[keep], None if smoothed is None else smoothed[keep]


def _running_median(values: np.ndarray, reach: int) -> np.ndarray:
    """Median of up to `reach` neighbours on each side."""
    padded = np.pad(values, reach, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    result = np.full(len(values), np.nan)
    known = np.isfinite(windows).any(axis=1)
    result[known] = np.nanmedian(windows[known], axis=1)
    return result


def _range(values: np.ndarray, log: bool) -> Bounds:
    low, high = float(values.min()), float(values.max())
    if log:
        return (low / 1.15, high * 1.15)
    margin = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    # An axis that begins a little above zero misleads: begin it at zero.
    start = 0.0 if 0 <= low < 0.4 * high else low - margin
    return start, high + margin


def _linear_ticks(bounds: Bounds, *, whole: bool = False) -> list[float]:
    ticks = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(*bounds)
    slack = 1e-9 * (bounds[1] - bounds[0])
    return [float(tick) for tick in ticks if bounds[0] - slack <= tick <= bounds[1] + slack]


def _log_ticks(bounds: Bounds) -> list[float]:
    for subdivisions in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
        ticks = LogLocator(subs=subdivisions).tick_values(*bounds)
        inside = [float(tick) for tick in ticks if bounds[0] <= tick <= bounds[1]]
        if len(inside) >= 3:
            return inside
    return inside or [bounds[0], bounds[1]]


def _x_label(text: str) -> str:
    middle = (LEFT + WIDTH - RIGHT) / 2
    return f'<text class="axis" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(text)}</text>'


def _drawing(style: str, attributes: str, description: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="{style}" {attributes} role="img" aria-label="{escape(description)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
