"""The lineage as a picture: a box a run, columns by step, rows by task, the shared models on top of them.

A column is a step, or steps that stand side by side; data flows from left to right. A row is a task; inside of it,
and in the band of the shared models, lies a line for each generation, which is how often the shared models were made.
Lines that follow from others are left out: what is reached over a longer way needs no short one. All lines into or out
of a shared model run together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from markupsafe import Markup, escape

from world4rl.audit.book import Book
from world4rl.audit.reach import starts_of
from world4rl.audit.versions import History, Version
from world4rl.provenance.graph import Lineage

BOX_WIDTH, BOX_HEIGHT = 106, 30  # all in CSS pixels
GAP = 12  # between boxes above each other; lines that pass a box run there,
LANES = {False: 4, True: 8}  # those to the right so far below it, those back to the left so far
MARGIN, HEAD, NAMES = 8, 34, 104  # around everything, for the names of steps, for those of tasks
TRACK = 6  # between two lines side by side
GENERATIONS = 3  # the newest are drawn

STATES = {
    "current": "current",
    "superseded": "superseded by a newer version",
    "stale": "stale: something that it was made from has changed",
    "withdrawn": "made from withdrawn episodes",
}


@dataclass(frozen=True)
class Node:
    """A run.

    Attributes:
        run: Its index in the book.
        step: What it did.
        task: For which task; None: for all.
        generation: From 1.
        state: One of `STATES`.
        digest: Of its main output.
        marks: What stands beside the digest: champion, robots.
        text: All about it, for whoever points at it.
    """

    run: int
    step: str
    task: str | None
    generation: int
    state: str
    digest: str
    marks: str
    text: str


@dataclass(frozen=True)
class Box:
    """Where a node is drawn."""

    node: Node
    x: float
    y: float

    @property
    def left(self) -> tuple[float, float]:
        """Where lines end."""
        return self.x, self.y + BOX_HEIGHT / 2

    @property
    def right(self) -> tuple[float, float]:
        """Where lines begin."""
        return self.x + BOX_WIDTH, self.y + BOX_HEIGHT / 2


@dataclass(frozen=True)
class Line:
    """A line from a box to one that was made from it, through points with right angles between."""

    source: int
    target: int
    points: tuple[tuple[float, float], ...]

    @property
    def back(self) -> bool:
        """Whether it leads to the left: rollouts of a policy become data of the next generation."""
        return self.points[-1][0] < self.points[0][0]


@dataclass(frozen=True)
class Layout:
    """The whole drawing.

    Attributes:
        width: In CSS pixels.
        height: In CSS pixels.
        boxes: By run.
        lines: Between them.
        columns: Names of steps and the left ends of their columns.
        rows: Names of rows, their tops and heights.
        left_out: Generations that are older than those that are drawn.
    """

    width: float
    height: float
    boxes: Mapping[int, Box]
    lines: Sequence[Line]
    columns: Sequence[tuple[Sequence[str], float]]
    rows: Sequence[tuple[str, float, float]]
    left_out: int


def draw(book: Book, history: History, stale: Set[str], *, generations: int = GENERATIONS) -> Markup:
    """The picture as inline SVG, without a script.

    Args:
        book: The records.
        history: Their history.
        stale: Paths that are stale.
        generations: How many are drawn, the newest.
    """
    return render(lay_out(nodes_of(book, history, stale), run_lineage(history), generations=generations))


def run_lineage(history: History) -> Lineage[int]:
    """Which run used what which run had made."""
    lineage = Lineage[int]()
    for made, sources in history.lineage.made_from.items():
        if made.run is not None:
            lineage.add(made.run, {one.run for one in sources if one.run is not None})
    return lineage


def nodes_of(book: Book, history: History, stale: Set[str]) -> list[Node]:
    """A node a run, oldest first."""
    current = {history.made_by[version][-1] for version in history.current.values()}
    fouled = {one.run for one in history.beyond(starts_of(book, history, book.withdrawn))}
    lineage = run_lineage(history)
    upstream = _upstream(book, lineage)
    made = 0
    generation: dict[int, int] = {}
    nodes = []
    for run, record in enumerate(book.runs):
        step, _, task = record.predicate.stage.partition("@")
        first_shared = _first_shared(book)
        made += step == first_shared
        used = [
            generation[one] for one in lineage.made_from.get(run, ()) if book.runs[one].predicate.stage == first_shared
        ]
        generation[run] = made + 1 if step in upstream else max(used, default=max(made, 1))
        outputs = history.outputs(run, record)
        state = _state(run, outputs, current, stale, fouled)
        nodes.append(
            Node(
                run=run,
                step=step,
                task=task or None,
                generation=generation[run],
                state=state,
                digest=_main(history, run, outputs),
                marks=_marks(book, outputs),
                text=_text(book, run, outputs, state),
            )
        )
    return nodes


def _first_shared(book: Book) -> str | None:
    """The step whose runs count the generations: the first one for all tasks, that is the world model."""
    return next((one.predicate.stage for one in book.runs if "@" not in one.predicate.stage), None)


def _upstream(book: Book, lineage: Lineage[int]) -> set[str]:
    """Steps whose first runs came before the first shared model."""
    first = _first_shared(book)
    found: set[str] = set()
    for record in book.runs:
        if record.predicate.stage == first:
            break
        found.add(record.predicate.stage.partition("@")[0])
    return found


def _state(run: int, outputs: Sequence[Version], current: Set[int], stale: Set[str], fouled: Set[int | None]) -> str:
    if run in fouled:
        return "withdrawn"
    if run not in current:
        return "superseded"
    return "stale" if any(version.path in stale for version in outputs) else "current"


def _main(history: History, run: int, outputs: Sequence[Version]) -> str:
    """The first digits of the first output that is new with this run."""
    new = [version for version in outputs if history.made_by[version][0] == run]
    return next((version.digest[:8] for version in (*new, *outputs)), "")


def _marks(book: Book, outputs: Sequence[Version]) -> str:
    digests = {version.digest for version in outputs}
    robots = len({one.robot for one, end in book.deployments if end is None and one.policy in digests})
    champion = any(digest in digests for digest in book.champions.values())
    return ("★" if champion else "") + (f" ⚑{robots}" if robots else "")


def _text(book: Book, run: int, outputs: Sequence[Version], state: str) -> str:
    one = book.runs[run].predicate
    robots = [
        f"runs on {each.robot}"
        for each, end in book.deployments
        if end is None and each.policy in {v.digest for v in outputs}
    ]
    return "\n".join(
        [f"run {run + 1}: {one.stage}, {one.ended or 'at an unknown time'}", STATES[state], *robots, *map(str, outputs)]
    )


def lay_out(nodes: Sequence[Node], lineage: Lineage[int], *, generations: int = GENERATIONS) -> Layout:
    """Places boxes and lines; no two boxes overlap, and every line ends at its boxes."""
    oldest = max(1, max((node.generation for node in nodes), default=1) - generations + 1)
    shown = {node.run: node for node in nodes if node.generation >= oldest}
    edges = reduced(lineage, shown.keys())
    columns = _columns(nodes, lineage)
    rows = _rows(shown.values(), columns)
    places, names, bottom = _places(rows)
    tracks = _Tracks(shown, edges, columns, places)
    boxes = {run: Box(node, tracks.lefts[columns[node.step]], places[run]) for run, node in shown.items()}
    steps: dict[int, list[str]] = defaultdict(list)
    for step, column in columns.items():
        steps[column].append(step)
    return Layout(
        width=tracks.width,
        height=bottom,
        boxes=boxes,
        lines=[tracks.line(boxes, source, target) for source, target in edges],
        columns=[(steps[column], tracks.lefts[column]) for column in sorted(steps)],
        rows=names,
        left_out=oldest - 1,
    )


def reduced(lineage: Lineage[int], shown: Set[int]) -> list[tuple[int, int]]:
    """The edges between the nodes that are shown, less those that follow from others."""
    before: dict[int, set[int]] = {}
    edges = []
    for node in sorted(lineage.made_from):  # runs follow their inputs
        sources = lineage.made_from[node]
        indirect = set[int]().union(*(before[source] for source in sources))
        before[node] = indirect | sources
        edges += [(source, node) for source in sorted(sources - indirect) if {source, node} <= shown]
    return edges


def _columns(nodes: Sequence[Node], lineage: Lineage[int]) -> dict[str, int]:
    """The column of each step: behind all steps that it reads, and as near as can be to those that read it."""
    steps = {node.run: node.step for node in nodes}
    order = list(dict.fromkeys(steps.values()))  # of their first runs, which came after those of what they read
    number = {step: place for place, step in enumerate(order)}
    reads: dict[str, set[str]] = {step: set() for step in order}
    for run, sources in lineage.made_from.items():
        # A step that comes earlier in the pipeline and reads a later one's results begins the next generation.
        reads[steps[run]] |= {steps[one] for one in sources if number[steps[one]] < number[steps[run]]}
    columns: dict[str, int] = {}
    for step in order:
        columns[step] = 1 + max((columns[one] for one in reads[step]), default=-1)
    for step in reversed(order):
        readers = [columns[one] for one in order if step in reads[one]]
        if readers:
            columns[step] = max(columns[step], min(readers) - 1)
    used = sorted(set(columns.values()))
    return {step: used.index(column) for step, column in columns.items()}


type Cells = dict[int, list[Node]]


def _rows(nodes: Iterable[Node], columns: Mapping[str, int]) -> list[tuple[str, list[Cells]]]:
    """The rows: for all tasks first, then a task each; in each a band a generation, in that boxes by column."""
    found: dict[str | None, dict[int, Cells]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for node in sorted(nodes, key=lambda one: one.run):
        found[node.task][node.generation][columns[node.step]].append(node)
    ordered = sorted(found, key=lambda task: (task is not None, task or ""))
    return [(task or "all tasks", [found[task][generation] for generation in sorted(found[task])]) for task in ordered]


def _places(rows: Sequence[tuple[str, list[Cells]]]) -> tuple[dict[int, float], list[tuple[str, float, float]], float]:
    """The top of each run's box; names, tops and heights of the rows; where all of it ends."""
    tops: dict[int, float] = {}
    names = []
    y = float(MARGIN + HEAD)
    for name, bands in rows:
        top = y
        for cells in bands:
            for members in cells.values():
                tops |= {node.run: y + place * (BOX_HEIGHT + GAP) for place, node in enumerate(members)}
            y += max(map(len, cells.values())) * (BOX_HEIGHT + GAP)
        names.append((name, top, y - top))
        y += GAP
    return tops, names, y + MARGIN


class _Tracks:
    """Where lines run: in the channels between columns, each bundle on a vertical track.

    A bundle is all lines out of, or else into, a run for all tasks; any other lines are those of their own source. Two
    bundles share a track where they do not meet.

    Args:
        shown: The runs by index.
        edges: Between them.
        columns: Of the steps.
        tops: Of the boxes.

    Attributes:
        lefts: Left ends of the columns.
        width: Of everything.
    """

    def __init__(
        self,
        shown: Mapping[int, Node],
        edges: Sequence[tuple[int, int]],
        columns: Mapping[str, int],
        tops: Mapping[int, float],
    ) -> None:
        self._shown, self._columns, self._tops = shown, columns, tops
        spans: dict[int, dict[object, tuple[float, float]]] = defaultdict(dict)
        for source, target in edges:
            for channel, bundle, begin, end in self._verticals(source, target):
                low, high = spans[channel].get(bundle, (begin, begin))
                spans[channel][bundle] = (min(low, begin, end), max(high, begin, end))
        self._tracks = {channel: _without_meeting(found) for channel, found in spans.items()}
        self._channels, self.lefts = [], list[float]()
        x = float(MARGIN + NAMES)
        for channel in range(max(columns.values(), default=-1) + 2):
            self._channels.append(x)
            x += 2 * GAP + TRACK * max(self._tracks.get(channel, {}).values(), default=0)
            self.lefts.append(x)
            x += BOX_WIDTH
        self.width = self.lefts.pop() + MARGIN

    def line(self, boxes: Mapping[int, Box], source: int, target: int) -> Line:
        """The way of a line: through one channel between neighbours, else below the source's box to the last one."""
        points = [boxes[source].right]
        for channel, bundle, begin, end in self._verticals(source, target):
            x = self._channels[channel] + GAP + TRACK * self._tracks[channel][bundle]
            points += [(x, begin), (x, end)]
        return Line(source, target, (*points, boxes[target].left))

    def _verticals(self, source: int, target: int) -> list[tuple[int, object, float, float]]:
        """The upright parts of a line: channel (number n lies before column n), bundle, begin and end."""
        begin, end = (self._tops[run] + BOX_HEIGHT / 2 for run in (source, target))
        first, last = self._column(source) + 1, self._column(target)
        bundle = self._bundle(source, target)
        if first == last:
            return [(first, bundle, begin, end)]
        back = last < first
        lane = self._tops[source] + BOX_HEIGHT + LANES[back]
        return [(first, ("leaves", source, back), begin, lane), (last, bundle, lane, end)]

    def _column(self, run: int) -> int:
        return self._columns[self._shown[run].step]

    def _bundle(self, source: int, target: int) -> object:
        into = self._shown[source].task is not None and self._shown[target].task is None
        return ("into", target) if into else ("out of", source)


def _without_meeting(spans: Mapping[object, tuple[float, float]]) -> dict[object, int]:
    """A track for each span, so that those of one track do not meet."""
    ends: list[float] = []
    found = {}
    for bundle, (low, high) in sorted(spans.items(), key=lambda item: item[1]):
        track = next((number for number, end in enumerate(ends) if end + TRACK < low), len(ends))
        ends[track : track + 1] = [high]
        found[bundle] = track
    return found


def render(layout: Layout) -> Markup:
    """The layout as SVG. Its colours are CSS classes of the page (`templates/audit.css`)."""
    parts = [
        f'<svg class="lineage" viewBox="0 0 {layout.width:g} {layout.height:g}" width="{layout.width:g}" '
        f'height="{layout.height:g}" role="img" aria-label="The lineage: which run made what from what">'
    ]
    for number, (name, top, height) in enumerate(layout.rows):
        parts.append(
            f'<rect class="row{" odd" if number % 2 else ""}" x="0" y="{top - GAP:g}" width="{layout.width:g}" '
            f'height="{height + GAP:g}"/>'
            f'<text class="task" x="{MARGIN}" y="{top + BOX_HEIGHT / 2 + 4:g}">{escape(_shortened(name))}'
            f"<title>{escape(name)}</title></text>"
        )
    for steps, left in layout.columns:
        for place, step in enumerate(steps):
            y = MARGIN + HEAD - GAP - 8 - 13 * (len(steps) - 1 - place)
            parts.append(f'<text class="step" x="{left:g}" y="{y:g}">{escape(step.replace("_", " "))}</text>')
    for line in layout.lines:
        style = f"line {layout.boxes[line.target].node.state}{' back' if line.back else ''}"
        parts.append(f'<path class="{style}" d="{_rounded(line.points)}"/>')
    parts += [_box(box) for box in layout.boxes.values()]
    return Markup("".join([*parts, "</svg>"]))


def _box(box: Box) -> str:
    node = box.node
    return (
        f'<g class="box {node.state}"><title>{escape(node.text)}</title>'
        f'<rect x="{box.x:g}" y="{box.y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="5"/>'
        f'<text class="what" x="{box.x + 7:g}" y="{box.y + 12:g}">{escape(node.step.replace("_", " "))} '
        f"{node.generation}</text>"
        f'<text class="digest" x="{box.x + 7:g}" y="{box.y + 25:g}">{escape(node.digest)}</text>'
        f'<text class="marks" x="{box.x + BOX_WIDTH - 6:g}" y="{box.y + 25:g}">{escape(node.marks)}</text></g>'
    )


def _rounded(points: Sequence[tuple[float, float]], radius: float = 4) -> str:
    """A path with round corners."""
    path = [f"M{points[0][0]:g} {points[0][1]:g}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        near, far = _towards(corner, before, radius), _towards(corner, after, radius)
        path.append(f"L{near[0]:g} {near[1]:g}Q{corner[0]:g} {corner[1]:g} {far[0]:g} {far[1]:g}")
    return "".join([*path, f"L{points[-1][0]:g} {points[-1][1]:g}"])


def _towards(start: tuple[float, float], end: tuple[float, float], most: float) -> tuple[float, float]:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = abs(dx) + abs(dy)  # one of them is 0
    share = min(most, length / 2) / length if length else 0
    return start[0] + dx * share, start[1] + dy * share


def _shortened(name: str, most: int = 15) -> str:
    name = name.removesuffix("-v3")
    return name if len(name) <= most else f"{name[: most - 1]}…"
