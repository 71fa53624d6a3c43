"""Sessions: `nox -s tests`, `lint`, `types`, `light`, `subset`, `gpu`, `demo`, `page`, `bench`, `reference`.

Each session installs the versions of constraints.txt. Environments are reused, so a second run starts quickly. All
sessions that need torch share one, `.nox/project`, because with CUDA's libraries it takes 6 GB.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True

# Environments are installed without bytecode: with this variable, which many containers set, every process would
# compile torch's modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

CHROMIUM = os.environ.get("REPRO_CHROMIUM", "/usr/bin/chromium")
# Without benchmarks/prepare.py, which needs a folder of photographs.
BENCHMARKS = ("step", "lrn", "training", "batches", "ten_views", "cifar", "startup", "retrieval", "growth", "contest",
              "checkpoint", "feed")  # fmt: skip
OTHER_PLATFORMS = ("darwin", "win32")
# There only Python's own modules differ; mypy takes an eighth of the time without the libraries' types.
WITHOUT_LIBRARIES = ("--no-site-packages", "--ignore-missing-imports", "--no-warn-unused-ignores",
                     "--no-warn-return-any", "--allow-subclassing-any", "--allow-untyped-decorators")  # fmt: skip
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
HEAVY = {"numba", "pillow", "simplejpeg", "timm", "torch", "torchvision"}  # not needed by the parts without torch
LIGHT_TESTS = (
    "tests/paper",
    "tests/report",
    "tests/records",
    "tests/cli/test_output.py",
    "tests/test_imports.py",
    "tests/test_readme.py",
    # Simulations, which depend on the statistics and not on the version of Python.
    "--ignore=tests/report/test_error_rates.py",
    "--ignore=tests/paper/test_nominal.py",
)
TESTED_EXTRAS = ("test", "dask", "heic", "parquet", "export", "contest", "notebook", "remote", "object-store")
CONSTRAINTS = Path(__file__).parent / "constraints.txt"
ENVIRONMENTS = Path(__file__).parent / ".nox"
PROJECT = ENVIRONMENTS / "project"


def programs(environment: Path) -> Path:
    """Return the folder of an environment's programs."""
    return environment / ("Scripts" if os.name == "nt" else "bin")


def pip_install(session: nox.Session, environment: Path, python: str, *arguments: str) -> None:
    """Install packages in `environment`, which is created with the interpreter `python`, or completed."""
    session.run(python, "-m", "venv", str(environment), external=True)
    # --no-compile: Python compiles a module when it is first imported, and most of torch's never are.
    options = ("--quiet", "--disable-pip-version-check", "--no-compile")
    pip = (str(programs(environment) / "python"), "-m", "pip", "install", *options)
    session.run(*pip, "-c", str(CONSTRAINTS), *arguments, external=True)


def install(session: nox.Session, *extras: str) -> None:
    """Install this checkout in editable mode with `extras`, in the tested versions, in the shared environment."""
    project = f"-e.[{','.join(extras)}]" if extras else "-e."
    pip_install(session, PROJECT, sys.executable, project)


def run(session: nox.Session, program: str, *arguments: str, **variables: str) -> None:
    """Run a program of the shared environment as if that were activated, with further environment variables."""
    path = os.pathsep.join([str(programs(PROJECT)), os.environ["PATH"]])
    command = (str(programs(PROJECT) / program), *arguments)
    session.run(*command, external=True, env={"PATH": path, "VIRTUAL_ENV": str(PROJECT), **variables})


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the tests; those on real images need REPRO_TEST_DATA to name their folder."""
    install(session, *TESTED_EXTRAS)
    side_by_side = ("-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder")
    run(session, "pytest", *side_by_side, "--durations=10", *session.posargs)


@nox.session(venv_backend="none")
def subset(session: nox.Session) -> None:
    """Run the pipeline on ten classes of real images (REPRO_TEST_DATA), with a short training."""
    install(session, *TESTED_EXTRAS)
    run(session, "pytest", "-m", "subset", "-rA", *session.posargs)


@nox.session(venv_backend="none")
def gpu(session: nox.Session) -> None:
    """Run the tests that need an Nvidia GPU; all others run on the CPU, also where there is one."""
    install(session, "test")
    run(session, "pytest", "-m", "gpu", "-rA", *session.posargs)


@nox.session(venv_backend="venv")
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff; the project itself is not installed."""
    session.install("--quiet", "-c", str(CONSTRAINTS), "ruff")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Check types with mypy, for each platform."""
    install(session, "types")
    run(session, "mypy", "--platform", "linux")
    for platform in OTHER_PLATFORMS:
        run(session, "mypy", "--platform", platform, *WITHOUT_LIBRARIES)


@nox.session(venv_backend="none")
def light(session: nox.Session) -> None:
    """Test the parts without torch (paper, records, report, help) with every supported Python on this machine."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    packages = [each for each in needed if re.split(r"[<>=]", each)[0] not in HEAVY]
    for version in PYTHONS:
        python = find_python(version)
        if python is None:
            session.log(f"skipped: no Python {version} on this machine")
            continue
        environment = ENVIRONMENTS / f"light-{version}"
        pip_install(session, environment, python, *packages)
        pip_install(session, environment, python, "--no-deps", "-e.")
        session.run(str(programs(environment) / "pytest"), *LIGHT_TESTS, *session.posargs, external=True)


def find_python(version: str) -> str | None:
    """Return the path of a Python interpreter of this version, on the PATH or of pyenv, or None."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for candidate in (f"python{version}", *map(str, sorted(pyenv.glob(f"{version}.*/bin/python")))):
        try:
            done = subprocess.run([candidate, "-c", "import venv"], capture_output=True)
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    return None


@nox.session(venv_backend="none")
def demo(session: nox.Session) -> None:
    """Run `repro demo`, the README's first command, from scratch."""
    install(session)
    shutil.rmtree("outputs/demo", ignore_errors=True)
    run(session, "repro", "demo")


@nox.session(venv_backend="none")
def page(session: nox.Session) -> None:
    """Test the report in a browser, Debian's chromium; this also takes the README's screenshot."""
    install(session, "test", "page")
    if not Path(CHROMIUM).exists():
        root = () if os.geteuid() == 0 else ("sudo",)
        session.run(*root, "apt-get", "install", "--yes", "--no-install-recommends", "chromium", external=True)
    run(session, "pytest", "-m", "page", *session.posargs, REPRO_CHROMIUM=CHROMIUM)


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Run every benchmark, half an hour on an idle machine; `nox -s bench -- lrn step` runs some of them."""
    install(session, "bench")
    for name in session.posargs or BENCHMARKS:
        run(session, "python", f"benchmarks/{name}.py")


@nox.session(venv_backend="none")
def reference(session: nox.Session) -> None:
    """Generate docs/cli.md, docs/results.md from the published records, and the README's tables of both."""
    install(session)
    run(session, "python", "-m", "repro.cli.reference")
    run(session, "python", "-m", "repro.report.results")
