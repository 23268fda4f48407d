"""A real tritonserver on this machine's CPU: the one inside nvidia-pytriton, from the environment `.venv-triton`.

It has Triton's Python backend alone, so that it serves bundles made with `backend="python"`; `make triton` makes the
environment, and `python -m workbench.export.triton_server --check` says whether it works here.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from workbench.export.folder import ExportError

ENVIRONMENT = Path(__file__).resolve().parents[2] / ".venv-triton"
READY_S, STOP_S, TRIES = 120.0, 15.0, 3
_WHERE = """
import sysconfig
print(sysconfig.get_paths()["purelib"])
print(sysconfig.get_config_var("LIBDIR"))
print(sysconfig.get_python_version())
"""


@dataclass(frozen=True)
class Installed:
    """Where the server's parts are, and the variables that its process wants."""

    program: Path
    backends: Path
    stub: Path
    environ: dict[str, str]


def find_server(environment: Path = ENVIRONMENT) -> Installed:
    """The server in `environment`, after its libraries were found on this machine.

    Raises:
        ExportError: the environment, the server or a library is missing; the message says which and what to do.
    """
    python = environment / "bin" / "python"
    if not python.exists():
        raise ExportError(f"There is no {python}, tritonserver's environment: run `make triton` (Linux on x86_64).")
    told = subprocess.run([str(python), "-c", _WHERE], capture_output=True, text=True, check=False)
    if told.returncode:
        raise ExportError(
            f"{python} does not run ({told.stderr.strip()[-200:]}): remove {environment}, run `make triton`."
        )
    packages, libraries, version = told.stdout.splitlines()
    server = Path(packages) / "pytriton" / "tritonserver"
    installed = Installed(
        program=server / "bin" / "tritonserver",
        backends=server / "backends",
        stub=server / "python_backend_stubs" / version / "triton_python_backend_stub",
        environ={
            **{key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))},
            "LD_LIBRARY_PATH": f"{packages}/nvidia_pytriton.libs{os.pathsep}{libraries}",
            # the backend's Python knows its packages by the first python3 of PATH, and reads no PYTHONPATH
            "PATH": f"{environment.absolute() / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        },
    )
    for path in (installed.program, installed.backends / "python" / "libtriton_python.so", installed.stub):
        if not path.is_file():
            raise ExportError(f"{environment} has no {path.name}: remove {environment} and run `make triton`.")
        told = subprocess.run(["ldd", str(path)], env=installed.environ, capture_output=True, text=True, check=False)
        lines = (told.stdout + told.stderr).splitlines()
        missing = sorted({line.split("=>")[0].strip() for line in lines if "not found" in line})
        if missing:
            raise ExportError(
                f"{path.name} wants what this machine does not have: {', '.join(missing)}. On Debian: apt-get install "
                "libpython3.11 libstdc++6 zlib1g; glibc 2.35 or later is wanted."
            )
    return installed


@contextmanager
def run_server(repository: Path | str, environment: Path = ENVIRONMENT) -> Iterator[str]:
    """The address (http://127.0.0.1:PORT) of a server that has loaded every model of `repository`; stopped afterwards.

    It listens on a free port of loopback alone. When the block ends, with an error too, the server and the processes of
    its models are gone, and so is their shared memory.

    Args:
        repository: `model_repository` of a bundle made with `backend="python"`.
        environment: as `make triton` made it.

    Raises:
        ExportError: see `find_server`; or the server ended, or was not ready in time: the message has its last lines.
    """
    repository = Path(repository)
    if not repository.is_dir():
        raise ExportError(f"A model repository was wanted; there is no folder {repository}. Make the bundle first.")
    installed = find_server(environment)
    region = f"workbench-{uuid.uuid4().hex[:12]}-"
    with tempfile.TemporaryDirectory(prefix="triton-") as temporary:
        # the backend's Python writes __pycache__ beside its models, but the bundle stays as its sums say
        shutil.copytree(repository, Path(temporary, "models"), copy_function=_link)
        shutil.copytree(installed.backends, Path(temporary, "backends"))
        shutil.copy(installed.stub, Path(temporary, "backends", "python"))
        options = [f"--model-repository={temporary}/models", f"--backend-directory={temporary}/backends"]
        options += [f"--backend-config=python,shm-region-prefix-name={region}", "--disable-auto-complete-config"]
        options += ["--allow-grpc=false", "--allow-metrics=false", "--http-address=127.0.0.1"]
        for left in range(TRIES - 1, -1, -1):  # another process may take the free port first
            port, log = _free_port(), Path(temporary, f"server-{left}.log")
            with log.open("wb") as file:
                process = subprocess.Popen(
                    [str(installed.program), *options, f"--http-port={port}", "--exit-timeout-secs=5"],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=installed.environ,
                    start_new_session=True,
                )
            try:
                try:
                    _wait_until_ready(process, port, log)
                except ExportError:
                    if left and b"already in use" in log.read_bytes():
                        continue
                    raise
                yield f"http://127.0.0.1:{port}"
                return
            finally:
                _stop(process)
                for shared in Path("/dev/shm").glob(f"{region}*"):
                    shared.unlink(missing_ok=True)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    ends = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < ends:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
            if process.poll() is None:  # else the answer came from somebody else
                return
        time.sleep(0.1)
    ended = process.returncode is not None
    how = f"ended with code {process.returncode}" if ended else f"was not ready after {READY_S:.0f} s"
    said = [line for line in log.read_text(errors="replace").splitlines() if line.startswith(("E", "error"))]
    raise ExportError(f"tritonserver {how}. Its last errors:\n" + "\n".join(said[-10:]))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and what it started: asked first, then killed, as one session."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _link(source: str, target: str) -> None:
    try:
        os.link(Path(source).resolve(), target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _main() -> None:
    parser = argparse.ArgumentParser(description="Whether tritonserver can run on this machine.")
    parser.add_argument("--check", action="store_true", required=True)
    parser.parse_args()
    try:
        find_server()
    except ExportError as error:
        sys.exit(f"NO TRITONSERVER: {error}")


if __name__ == "__main__":
    _main()
