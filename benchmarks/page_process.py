"""``python page_process.py PAGE``: run the Python blocks of a page, and print what each did, as JSON.

It imports nothing of this repository: a newcomer has none of it but what was installed.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import time
import traceback
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def main(page: Path) -> None:
    """Run the blocks in order, in one namespace, and go on after a failure."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for source in _BLOCK.findall(page.read_text(encoding="utf-8")):
        said = io.StringIO()
        start = time.perf_counter()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                exec(compile(source, page.name, "exec"), namespace)  # noqa: S102
            except Exception as error:  # noqa: BLE001  # whatever it is, it is what the newcomer sees
                said.write(traceback.format_exception_only(error)[-1])
        seconds = time.perf_counter() - start
        sys.stdout.write(json.dumps({"source": source, "seconds": seconds, "output": said.getvalue()}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
