"""What a person does in the browser, a method a step, over a live project whose stages take milliseconds.

The steps go on from each other's results, so a test may chain any of them: drop a dataset, wait, look, take a picture.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from urllib.parse import quote

from PIL import Image

from benchmarks.live import UNFINISHED, Live, wait_for
from tests.browser.chromium import Chromium
from world4rl.landing.ledger import Event, Ledger
from world4rl.paths import Paths

ON_THEIR_WAY = (None, "waiting", "ready", "taking")


class Visit:
    """A browser in front of a live project.

    Args:
        root: The project.
        pictures: Where screenshots go.
    """

    def __init__(self, root: Path, pictures: Path) -> None:
        self.paths = Paths(root)
        self.pictures = pictures
        self.live = Live(root)
        self._browser = Chromium()

    def __enter__(self) -> Self:
        try:
            self.live.__enter__()
            self.page = self._browser.open(self.live.url)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.__exit__()
        self.live.__exit__()

    def go(self, path: str, *texts: str) -> str:
        """Opens a page of the UI and waits for texts on it; returns all that it shows."""
        self.page.go(self.live.url + path)
        return self.page.wait_for_text(*texts)

    def follow(self, link: str, *texts: str) -> str:
        """Clicks a link on the page, which opens in this tab, and waits for texts; returns all that is shown."""
        selector = f"a[href={json.dumps(link)}]"
        self.page.wait_for(selector)
        self.page.evaluate(f"document.querySelectorAll({json.dumps(selector)}).forEach(a => a.target = '_self')")
        self.page.click(link, selector)
        return self.page.wait_for_text(*texts)

    def picture(self, name: str) -> None:
        """Takes a screenshot, in 128 colours: a third of the bytes, and nobody sees a difference."""
        file = self.pictures / f"{name}.png"
        self.page.screenshot(file)
        with Image.open(file) as picture:
            picture.quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)

    def open_graph(self, groups: Sequence[str], assets: Sequence[str]) -> str:
        """Opens the asset graph with its groups expanded, over the whole width; assets out of sight are not drawn."""
        expanded = quote(",".join(f"global@global:{group}" for group in groups))
        self.go(f"/asset-groups?expanded={expanded}", "demos")
        self.page.click_icon("panel_show_right")
        return self.page.wait_for_text(*assets)

    def materialise_by_click(self, asset: str) -> None:
        """Clicks Materialize on an asset's page, chooses all partitions, and waits for their end."""
        self.go(f"/assets/{asset}", "Materialize…")
        self.page.click("Materialize…", "button", exact=False)
        self.page.wait_for_text("Partition selection")
        self.page.click("All", "button")
        self.page.wait_for_text("2 partitions")
        self.page.click("Launch backfill", "button", exact=False)
        wait_for("runs of a click", lambda: self.live.runs("SUCCESS"), 400)
        wait_for("the end of all runs", lambda: not self.live.runs(*UNFINISHED), 400)

    def run(self, job: str, partition: str | None = None) -> None:
        """Runs a job to its end, without clicking."""
        run = self.live.launch(job, partition)
        wait_for(f"the end of {job}", lambda: self.live.status(run) not in UNFINISHED, 400)
        assert self.live.status(run) == "SUCCESS", self.live.log.read_text()[-3000:]

    def land(self, dataset: Path, **said: str) -> None:
        """Drops a dataset into the landing folder with the command for people, and waits until it is settled."""
        options = [part for key, value in said.items() for part in (f"--{key}", value)]
        subprocess.run(
            [sys.executable, "-m", "world4rl", "land", str(dataset), *options, "--root", str(self.paths.root)],
            check=True,
        )
        wait_for(f"a verdict about {dataset.name}", lambda: self.state(dataset.name) not in ON_THEIR_WAY, 300)

    def wait_for_champion(self, task: str) -> None:
        """Waits until the daemon has had a task's policy promoted and does nothing more."""
        wait_for(f"a champion of {task}", self.paths.challenge_report(task).exists, 600)
        wait_for("the end of all runs", lambda: not self.live.runs(*UNFINISHED), 400)

    def state(self, name: str) -> str | None:
        """What the ledger says of a dataset; None where it was not seen yet."""
        events = self.events(name)
        return events[-1].state if events else None

    def events(self, name: str) -> list[Event]:
        """All that the ledger says of a dataset."""
        ledger = Ledger(self.paths.ledger)
        try:
            return ledger.events(name)
        finally:
            ledger.close()

    def open_tick(self, sensor: str, reason: str) -> None:
        """Waits for a tick of a sensor that did nothing for a reason, and opens it."""

        def newest() -> bool:
            ticks = self.live.ticks(sensor)
            return bool(ticks) and reason in (ticks[0]["skipReason"] or "")

        wait_for(f"a tick of {sensor} because {reason}", newest, 300)
        self.go(f"/locations/world4rl/sensors/{sensor}", "Evaluations")
        self.page.click("0 runs requested", "button", exact=False)
        self.page.wait_for_text(f"Skip reason: {reason}")
