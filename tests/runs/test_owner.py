"""Who works on a folder: one process at a time, named so that neither a set clock nor another host confuses it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from workbench.runs.owner import FolderInUseError, describe_process, hold, whereabouts

HOLD = "import sys; from pathlib import Path; from workbench.runs.owner import hold\n"
HOLD += "with hold(Path(sys.argv[1])):\n    print('held', flush=True)\n    input()\n"


def test_a_folder_is_held_by_one_process_until_it_ends_or_dies(tmp_path: Path) -> None:
    folder = tmp_path / "not yet" / "there"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(FolderInUseError, match="Another process works on"), hold(folder):
            pass
        process.kill()
    with hold(folder), pytest.raises(FolderInUseError), hold(folder):
        pass
    with hold(folder):
        pass


def test_this_process_is_alive_and_its_name_is_not_another_ones() -> None:
    own = describe_process()
    assert (own["pid"], own["host"]) == (os.getpid(), os.uname().nodename)
    assert whereabouts(own) == "alive"
    assert whereabouts(own | {"process_ticks": own["process_ticks"] - 1}) == "gone", "another one has the number"
    assert whereabouts(own | {"boot_id": "00000000-0000-0000-0000-000000000000"}) == "gone", "before the last boot"
    assert whereabouts(own | {"host": own["host"] + "2"}) == "elsewhere"


def test_a_clock_that_was_set_by_an_hour_changes_nothing() -> None:
    own = describe_process()
    assert whereabouts(own | {"process_started": own["process_started"] + 3600}) == "alive"


def test_a_record_from_before_hosts_were_written_goes_by_the_start() -> None:
    own = {name: describe_process()[name] for name in ("pid", "process_started")}
    assert whereabouts(own) == "alive"
    assert whereabouts(own | {"process_started": own["process_started"] - 60}) == "gone"


def test_the_ticks_are_those_that_psutil_counts_seconds_from() -> None:
    own = describe_process()
    seconds = own["process_ticks"] / os.sysconf("SC_CLK_TCK")
    # both ends are cut to whole seconds or hundredths, and the boot's time is estimated once a process
    assert abs(psutil.boot_time() + seconds - psutil.Process().create_time()) < 2


def test_a_process_that_has_ended_is_gone_also_before_it_is_waited_for() -> None:
    code = "import json; from workbench.runs.owner import describe_process; print(json.dumps(describe_process()))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        named = json.loads(process.stdout.read())
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert whereabouts(named) == "gone"
        assert whereabouts({name: named[name] for name in ("pid", "process_started")}) == "gone"
    assert whereabouts(named) == "gone"
