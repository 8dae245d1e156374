"""What Slicer shows of the module before it is opened."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace


def test_the_help_links_to_a_page_of_this_repository(root: Path) -> None:
    """Slicer's own helper puts the address of Slicer's manual before whatever it is given."""
    from MSKDSegmentation import MSKDSegmentation

    module = MSKDSegmentation(SimpleNamespace())
    (link,) = re.findall(r'href="(.*?)"', module.parent.helpText)
    page = link.removeprefix("https://github.com/mskd-segmentation/MSKD/blob/main/")
    assert (root / page).is_file()
