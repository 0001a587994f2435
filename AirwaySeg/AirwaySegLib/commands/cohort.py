"""The command `airwayseg cohort`: many CTs, one table, one page. It can be stopped and started again at any time."""

import gc
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

from AirwaySegLib.cohort.case import Case, Found
from AirwaySegLib.cohort.case_list import write_left_out, write_list
from AirwaySegLib.cohort.cluster import Cluster, import_distributed, run_on_cluster
from AirwaySegLib.cohort.discovery import THICKEST_MM, Search, find_cases, reasons_counted
from AirwaySegLib.cohort.display import CohortDisplay, shown
from AirwaySegLib.cohort.records import (
    FAILURE,
    FINISHED,
    IN_USE,
    Outcome,
    failure_of,
    forget_failure,
    note_failure,
    outcome_of,
    report_of,
    result_folder,
)
from AirwaySegLib.cohort.report import PAGE, write_report
from AirwaySegLib.cohort.schedule import Read, run_here
from AirwaySegLib.cohort.tables import BRANCHES, CASES, GENERATIONS, write_tables
from AirwaySegLib.commands import given_mask
from AirwaySegLib.commands import segment as segmenting
from AirwaySegLib.commands.dicom_out import DICOM_SEG, has_dicom, write_result_as_dicom
from AirwaySegLib.commands.measure import result_files
from AirwaySegLib.commands.provenance import REPORT, check_done, file_sha256, is_described
from AirwaySegLib.errors import AirwaySegError, Cancelled, one_sentence
from AirwaySegLib.files.atomic_output import unfinished_names
from AirwaySegLib.files.dicom_seg import import_highdicom
from AirwaySegLib.files.folder_lock import InUse, locked
from AirwaySegLib.networks.plugins import load_plugins
from AirwaySegLib.networks.weights import read_info
from AirwaySegLib.pipeline import Model, load_model, repair_model_of
from AirwaySegLib.progress import Bar, Progress, silent
from AirwaySegLib.settings import SegmentSettings

log = logging.getLogger("airwayseg")

CASE_LIST, LEFT_OUT, LOG = "cases.csv", "left-out.csv", "cohort.log"
FILES = (CASE_LIST, LEFT_OUT, LOG, CASES, BRANCHES, GENERATIONS, PAGE)
TRIES = 2
"""How often a case that fails is tried in one run."""


@dataclass(frozen=True)
class CohortRequest:
    """Inputs, the folder for everything that is written, how to segment, and which inputs to take.

    ``shard`` "I/N" takes every Nth case and writes no tables. ``force`` replaces results of other settings, weights,
    versions or CTs. ``dicom_seg`` is "airways" or "lobes": results of DICOM get a DICOM Segmentation. ``cluster`` runs
    the cases there. ``plugins`` are the files of `load_plugins`, which have been run here; each worker runs them, too.
    """

    inputs: list[Path]
    output: Path
    settings: SegmentSettings
    all_series: bool = False
    thickest_mm: float = THICKEST_MM
    shard: str = "1/1"
    force: bool = False
    dicom_seg: str = ""
    cluster: Cluster | None = None
    plugins: tuple[Path, ...] = ()


@dataclass(frozen=True)
class How:
    """What a worker must know to run a case, besides the case."""

    output: Path
    settings: SegmentSettings
    force: bool = False
    dicom_seg: str = ""
    plugins: tuple[Path, ...] = ()


@dataclass
class Plan:
    """What is to be done: the cases of this run, those that are finished, and results that are not what is meant."""

    cases: list[Case]
    waiting: list[Case] = field(default_factory=list)
    finished: list[Case] = field(default_factory=list)
    differing: list[tuple[Case, str]] = field(default_factory=list)


def run_cohort(request: CohortRequest, kind: str) -> int:
    """Run what is not finished, then write tables and report; return how many cases another run or other results block.

    ``kind`` is the kind of display ("bar", "json" or "none").

    Raises
    ------
    AirwaySegError
        If there is no case, the weights cannot be used, no case could be finished, or another run works in the folder.
    """
    if request.cluster is not None:
        import_distributed()  # what is missing is said before the search
    if request.dicom_seg:
        import_highdicom()
    first, step = segmenting.parse_shard(request.shard)
    with ExitStack() as stack:
        if step == 1:  # shards share the folder
            stack.enter_context(locked(request.output, "airwayseg cohort"))
            _remove_unfinished(request.output)
        found = _found(request, kind)
        plan = plan_of(request, found, load_model(request.settings.weights))
        display = CohortDisplay(kind, {case.id: case.voxels for case in plan.waiting}, len(plan.finished))
        log_name = LOG if step == 1 else LOG.replace(".", f"-{first}-of-{step}.")
        stack.enter_context(shown(display, request.output / log_name))
        display.message(_opening(plan, found))
        failed, blocked = _run(plan, request, display)
        for case, sentence in plan.differing:
            display.message(f"{case.id}: {sentence}")
        if step == 1:
            rows = write_tables(request.output, found.cases)
            before = {case.id for case in plan.finished}  # of which some may turn out to be damaged
            failed |= {row["id"]: row["error"] for row in rows if row["status"] == FAILURE and row["id"] in before}
            write_report(request.output, rows, f"Airways of {_count(len(rows), 'CT')}")
            if not any(row["status"] == FINISHED for row in rows):
                raise AirwaySegError(f"None of {len(rows)} cases could be finished; {request.output / CASES} says why.")
        display.message(_closing(plan, failed, blocked, request.output / PAGE if step == 1 else request.output))
    return blocked + len(plan.differing)


def _remove_unfinished(output: Path) -> None:
    """Remove what killed runs left of files that they were writing."""
    for name in (*FILES, *(str(Path(table).with_suffix(".parquet")) for table in (CASES, BRANCHES, GENERATIONS))):
        for path in output.glob(unfinished_names(name)):
            path.unlink(missing_ok=True)


def list_cohort(request: CohortRequest, kind: str) -> str:
    """What a run would do, as text: the cases, and what is left out and why; writes the two lists only.

    Raises
    ------
    AirwaySegError
        If there is no case or the weights cannot be used.
    """
    found = _found(request, kind)
    plan = plan_of(request, found, load_model(request.settings.weights))
    waiting = {case.id for case in plan.waiting}
    differing = {case.id: sentence for case, sentence in plan.differing}
    lines = []
    for case in plan.cases:
        failure = failure_of(request.output, case.id)
        state = f"failed before: {failure}" if failure else "to be run" if case.id in waiting else FINISHED
        lines.append(f"{case.id}  {case.about or case.path}  {differing.get(case.id, state)}")
    if found.left_out:
        lines += ["", "Left out:", *(f"{one.path}  {one.what}: {one.reason}" for one in found.left_out)]
    return "\n".join([*lines, "", _opening(plan, found)])


def _found(request: CohortRequest, kind: str) -> Found:
    """The cases of the inputs; writes them, and what was left out, unless the input is that list."""
    search = Search(request.output, request.all_series, request.thickest_mm)
    if kind == "bar" and sys.stderr.isatty():
        with closing(Bar()) as bar:
            found = find_cases(request.inputs, search, bar)
    else:
        found = find_cases(request.inputs, search, silent)
    own = os.path.realpath(request.output / CASE_LIST)
    if all(os.path.realpath(path) != own for path in request.inputs):
        write_list(request.output / CASE_LIST, found.cases)
        write_left_out(request.output / LEFT_OUT, found.left_out)
    return found


def plan_of(request: CohortRequest, found: Found, model: Model) -> Plan:
    """Which cases of the shard are finished, which are to be run, and which folders hold another result.

    Raises
    ------
    AirwaySegError
        If the weights of the repair cannot be used.
    """
    repair_model_of(model, request.settings)
    first, step = segmenting.parse_shard(request.shard)
    plan = Plan(list(found.cases[first - 1 :: step]))
    how = How(request.output, request.settings, request.force, request.dicom_seg)
    for case in plan.cases:
        try:
            done = has_result(case, how, model) and not _lacks_dicom(case, how)
            (plan.finished if done else plan.waiting).append(case)
        except AirwaySegError as error:
            plan.differing.append((case, one_sentence(error)))
    return plan


def _lacks_dicom(case: Case, how: How) -> bool:
    """Whether the result of a case still has to get its DICOM Segmentation."""
    folder = result_folder(how.output, case.id)
    return bool(how.dicom_seg and case.series) and not has_dicom(folder, how.dicom_seg == "lobes")


def has_result(case: Case, how: How, model: Model) -> bool:
    """Whether the case's folder holds its result; with ``how.force`` one that differs is none.

    Raises
    ------
    AirwaySegError
        If it holds the result of another CT, of other settings, weights or version, or files of it are missing.
    """
    folder = result_folder(how.output, case.id)
    if report_of(folder) is None:  # or one that was lost when the computer was
        return False
    names: tuple[str, ...] = (*segmenting.FILES, *result_files(voxels=False, ct=True))
    sha256 = model.sha256
    try:
        if case.mask is not None:
            names, sha256 = given_mask.FILES, str(given_mask.source_of(case.mask)["sha256"])
        check_done(folder, names, sha256, how.settings, lambda described: _is_its_ct(case, folder, described))
    except AirwaySegError:
        if not how.force:
            raise
        return False
    return True


def _is_its_ct(case: Case, folder: Path, described: dict[str, Any]) -> bool:
    """Whether a report describes this CT: the same path, not changed since; else the same file or the same voxels."""
    same_path = described["path"] == str(case.path) and (not case.series or described["series_uid"] == case.series)
    if same_path and _changed(case) <= (folder / REPORT).stat().st_mtime:
        return True
    checksum = file_sha256(case.path)
    if checksum is not None:
        return bool(checksum == described["file_sha256"])
    return is_described(case.read()[0], described)


def _changed(case: Case) -> float:
    """When the newest file of a CT was changed, in seconds since the epoch."""
    files: Iterable[Path] = case.files or ([case.path] if case.path.is_file() else case.path.rglob("*"))
    return max((file.stat().st_mtime for file in files), default=0.0)


def _run(plan: Plan, request: CohortRequest, display: CohortDisplay) -> tuple[dict[str, str], int]:
    """Run what is waiting, and what failed once more; the sentences of those that failed, and how many are in use."""
    plugins = tuple(path.absolute() for path in request.plugins)
    how = How(request.output.absolute(), request.settings, request.force, request.dicom_seg, plugins)
    for case in plan.finished:
        forget_failure(request.output, case.id)  # such as of a DICOM Segmentation that nobody asks for any more
    failed: dict[str, str] = {}
    blocked = 0
    waiting = plan.waiting
    for attempt in range(TRIES):
        failed = {}
        for outcome in run_all(waiting, how, display, request.cluster):
            if outcome.status == FAILURE:
                failed[outcome.id] = outcome.sentence
                note_failure(request.output, outcome.id, outcome.sentence)  # the worker may have died
            blocked += outcome.status == IN_USE
            display.case(outcome, again=outcome.status == FAILURE and attempt + 1 < TRIES)
        waiting = [case for case in waiting if case.id in failed]
        if not waiting:
            break
    return failed, blocked


def run_all(cases: list[Case], how: How, display: CohortDisplay, cluster: Cluster | None) -> Iterator[Outcome]:
    """Run the cases on a cluster, or on this computer, the next CT being read meanwhile."""
    if not cases:
        return
    if cluster is not None:

        def connected(workers: int, dashboard: str) -> None:
            display.workers = max(1, workers)
            display.message(f"{_count(workers, 'worker')}; dashboard: {dashboard}")

        yield from run_on_cluster(cases, partial(run_in_worker, how), cluster, connected)
        return
    model = load_model(how.settings.weights)

    def work(case: Case, read: Read) -> Outcome:
        display.start(case.id)
        return run_one(case, how, model, read, display)

    yield from run_here(cases, work)


def run_in_worker(how: How, case: Case) -> Outcome:
    """Run one case in the process of a worker, which keeps the weights for the next; the CT is read here."""
    _load_plugins_once(how.plugins)
    sha256 = read_info(how.settings.weights)[1]
    return run_one(case, how, _kept_model(how.settings, sha256), case.read, silent)


@cache
def _load_plugins_once(paths: tuple[Path, ...]) -> None:
    load_plugins(paths)


@lru_cache(maxsize=1)
def _kept_model(settings: SegmentSettings, sha256: str) -> Model:
    """The model with its backend and repair model, which are opened for these settings; of a changed file a new one."""
    return load_model(settings.weights)


def run_one(case: Case, how: How, model: Model, read: Read, progress: Progress) -> Outcome:
    """Run one case; a failure is returned, not raised."""
    start = time.perf_counter()
    folder = result_folder(how.output, case.id)
    try:
        if not has_result(case, how, model):  # another run may have finished it meanwhile
            (folder / DICOM_SEG).unlink(missing_ok=True)  # of the result before
            _segment_or_measure(case, folder, how, model, read, progress)
        if _lacks_dicom(case, how):
            write_result_as_dicom(folder, case.path, case.series, case.files, how.dicom_seg == "lobes")
    except Cancelled:
        raise
    except InUse as error:
        return Outcome(case.id, IN_USE, one_sentence(error))
    except Exception as error:
        log.info("details", exc_info=error)
        return Outcome(case.id, FAILURE, one_sentence(error), time.perf_counter() - start)
    finally:
        gc.collect()  # figures and first imports refer to themselves, and keep a CT until somebody collects them
    forget_failure(how.output, case.id)
    return outcome_of(how.output, case.id, time.perf_counter() - start)


def _segment_or_measure(
    case: Case, folder: Path, how: How, model: Model, read: Callable[..., Any], progress: Progress
) -> None:
    """Make the result of a case; what its folder holds is replaced, for it is not this result or incomplete."""
    if case.mask is not None:
        given_mask.run_given_mask(case.mask, folder, read, how.settings, progress, force=True)
        return
    batch = segmenting.Batch([case.path], folder, case.series or None, force=True)
    segmenting.run_case(case.path, folder, batch, model, how.settings, progress, read)


def _opening(plan: Plan, found: Found) -> str:
    """How many cases there are, and how many inputs were left out for which kind of reason."""
    parts = [f"{len(plan.waiting)} to be run"]
    parts += [f"{len(plan.finished)} finished before"] if plan.finished else []
    parts += [f"{len(plan.differing)} with another result"] if plan.differing else []
    text = f"{_count(len(plan.cases), 'CT')}: {', '.join(parts)}."
    if found.left_out:
        text += f" {_count(len(found.left_out), 'input')} left out ({reasons_counted(found.left_out)})."
    return text


def _closing(plan: Plan, failed: dict[str, str], blocked: int, where: Path) -> str:
    """The last line; ``where`` the user finds what was made."""
    done = len(plan.cases) - len(failed) - len(plan.differing) - blocked
    text = f"{done} of {_count(len(plan.cases), 'CT')} finished"
    text += f", {len(failed)} failed" if failed else ""
    text += f", {len(plan.differing)} with another result" if plan.differing else ""
    text += f", {blocked} in use by another run" if blocked else ""
    return f"{text}. {where}"


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
