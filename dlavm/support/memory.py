"""How much memory this process has used."""

from __future__ import annotations

import re
import resource
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_rss() -> int:
    """Bytes that were resident at the peak, mapped files included.

    `ru_maxrss` of a process also counts what its parent had resident when it was started; VmHWM does not.
    """
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB$", STATUS.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        found = None
    return 1024 * (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
