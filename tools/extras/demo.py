"""A small demo, by the command that the wheel installs."""

import subprocess
import sys
from pathlib import Path

command = str(Path(sys.executable).with_name("flashsale"))
subprocess.run([command, "demo", "--buyers", "50", "--units", "5", "--processes", "1"], check=True)
