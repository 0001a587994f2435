"""What a GPU needs and gives: inference, memory, training and the input pipeline, in so many minutes.

    python Testing/benchmarks/gpu.py --minutes 10 -o OUT [--data DATA]
    python Testing/benchmarks/gpu.py --device cpu --size small --minutes 1 -o OUT

Each part gets its share of the minutes that are left and measures at least one row; a row that has begun is finished.
After every row OUT/results.json is written anew, so that nothing is lost when the machine is taken away; a row that
fails holds its error. Masks are compared, at a probability of 0.5, with the network's in float32 on the CPU.
Windows and patches are cut from DATA (folders cases/<id> as for `airwayseg-train fit`); without it from one simulated
case, in the small size from the bundled simulated patches. Peak memory is PyTorch's on the GPU, null on a CPU.
"""

import argparse
import functools
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from AirwaySegLib.files.atomic_output import write_text
from AirwaySegLib.networks.device_plan import Plan, plan
from AirwaySegLib.networks.sliding_window import inference_form, open_backend, predict
from AirwaySegLib.networks.weights import ModelInfo, load_weights
from AirwaySegLib.networks.windows import Sliding, count_windows
from AirwaySegTraining.data.augmentation import channels
from AirwaySegTraining.data.cases import Case, case_folders, prepared_case
from AirwaySegTraining.distributed import Team
from AirwaySegTraining.fit.checkpoint import Run, start_run
from AirwaySegTraining.fit.loop import train_step
from AirwaySegTraining.fit.patches import Batches, Source, case_maps
from AirwaySegTraining.fit.recipes import Recipe, Stage, load_recipe
from AirwaySegTraining.fit.rehearsal import rehearsal_cases, rehearsal_file
from AirwaySegTraining.fit.settings import FitSettings
from AirwaySegTraining.fit.stage_loss import stage_loss
from AirwaySegTraining.fit.steps import in_precision, loader
from AirwaySegTraining.simulator.simulate import simulate

LEAST_DICE = 0.999
TRACED = "aot_eager"
"""What stands for torch.compile on a CPU, whose compiler takes minutes."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """Sides in voxels of windows, of the volume of a case and of patches; batches, workers and repeats."""

    window: int
    volume_zyx: tuple[int, int, int]
    patches: tuple[int, ...]
    batches: tuple[int, ...]
    workers: tuple[int, ...]
    times: int


SIZES = {
    # A box round the lungs at the usual spacing: 36 windows of 128^3 at an overlap of a quarter.
    "full": Size(128, (320, 288, 352), (72, 128), (1, 2, 4, 8), (0, 1, 2, 4, 8, 12, 16), 5),
    "small": Size(32, (48, 48, 64), (32, 40), (1, 2), (0, 1), 1),
}


@dataclass(frozen=True)
class How:
    """How the network computes; ``compiled`` is a mode of torch.compile ("reduce-overhead": with CUDA graphs)."""

    precision: str = "float32"
    channels_last: bool = False
    compiled: str = ""
    batch: int = 1


@dataclass
class Bench:
    """What all parts share; ``best`` is the fastest of the configurations that were equal to the CPU's."""

    device: torch.device
    size: Size
    net: nn.Module
    info: ModelInfo
    cases: list[Case]
    recipe: Recipe
    best: How = How()
    best_seconds: float = float("inf")

    def synchronise(self) -> None:
        """Wait until the GPU has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def reset_peak(self) -> None:
        """Peak memory is counted from now on."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> float | None:
        """Peak memory of PyTorch's tensors on the GPU."""
        return round(torch.cuda.max_memory_allocated() / 2**30, 3) if self.device.type == "cuda" else None

    def seconds_of(self, work: Callable[[], object]) -> float:
        """Median seconds of ``work()``, after one call that does not count."""
        work()
        taken = []
        for _ in range(self.size.times):
            self.synchronise()
            start = time.perf_counter()
            work()
            self.synchronise()
            taken.append(time.perf_counter() - start)
        return float(np.median(taken))

    @functools.cached_property
    def volume(self) -> np.ndarray:
        """(C, Z, Y, X) float32 in [0, 1]: the cases' CTs, repeated to the size of a case."""
        windows = [window for window in (self.info.window_hu, self.info.second_window_hu) if window is not None]
        hu = np.asarray(self.cases[0].ct).astype(np.float32)
        return channels(resized(hu, self.size.volume_zyx), windows)

    @functools.cached_property
    def windows(self) -> np.ndarray:
        """Two windows from the middle of the first case, (2, C, S, S, S), which show most of its airways."""
        side = self.size.window
        middle = [max(0, (size - side) // 2) for size in self.volume.shape[1:]]
        starts = (middle, [0, *middle[1:]])
        boxes = [tuple(slice(start, start + side) for start in corner) for corner in starts]
        return np.stack([self.volume[(slice(None), *box)] for box in boxes])

    @functools.cached_property
    def expected(self) -> np.ndarray:
        """The mask of `windows` on the CPU in float32."""
        runner = Runner(self.net, self.info, How(), torch.device("cpu"))
        return np.concatenate([runner.run(window[None]) for window in self.windows]) >= 0.5


def resized(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The middle of an array, mirrored where it is too small."""
    array = np.pad(array, [(0, max(0, want - have)) for want, have in zip(shape, array.shape)], mode="symmetric")
    starts = [(have - want) // 2 for want, have in zip(shape, array.shape, strict=True)]
    return array[tuple(slice(start, start + want) for start, want in zip(starts, shape, strict=True))]


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Dice coefficient of two masks; 1 when both are empty."""
    total = int(one.sum()) + int(other.sum())
    return round(2 * int((one & other).sum()) / total, 6) if total else 1.0


class Runner:
    """A network for inference, computed as `How` says; it has the interface of a backend."""

    def __init__(self, net: nn.Module, info: ModelInfo, how: How, device: torch.device) -> None:
        self.how, self.device, self.batch = how, device, how.batch
        self.layout = torch.channels_last_3d if how.channels_last else torch.contiguous_format
        form: Any = inference_form(net, info)
        self.net = form.to(device, memory_format=self.layout)
        if how.compiled:
            self.net = compiled(self.net, how.compiled)

    def run(self, windows: np.ndarray) -> np.ndarray:
        """(B, C, Z, Y, X) -> probabilities (B, K, Z, Y, X)."""
        x = torch.from_numpy(windows).to(self.device).contiguous(memory_format=self.layout)
        with torch.inference_mode(), in_precision(self.how.precision, self.device):
            logits = self.net(x)
        return logits.float().sigmoid().cpu().numpy()


def compiled(net: nn.Module, how: str) -> Any:
    """The network by torch.compile in this mode; "aot_eager" only traces it, which takes seconds instead of minutes."""
    if how == TRACED:
        return torch.compile(net, backend=TRACED, dynamic=False)
    return torch.compile(net, mode=how, dynamic=False)


def measured(bench: Bench, how: How) -> Row:
    """Seconds a window, peak memory and agreement with the CPU of one configuration."""
    bench.reset_peak()
    runner = Runner(bench.net, bench.info, how, bench.device)
    batch = np.concatenate([bench.windows] * (how.batch // 2 or 1))[: how.batch]
    seconds = bench.seconds_of(lambda: runner.run(batch)) / how.batch
    peak = bench.peak_gib()
    found = np.concatenate([runner.run(np.repeat(window[None], how.batch, 0))[:1] for window in bench.windows]) >= 0.5
    agreement = dice(found, bench.expected)
    if agreement >= LEAST_DICE and seconds < bench.best_seconds:
        bench.best, bench.best_seconds = how, seconds
    return {
        **asdict(how),
        "seconds_a_window": round(seconds, 5),
        "peak_gib": peak,
        "dice_with_cpu": agreement,
        "equal": agreement >= LEAST_DICE,
    }


def windows_part(bench: Bench) -> Iterator[Callable[[], Row]]:
    """Precision, memory layout and batch."""
    for batch, precision, last in itertools.product(bench.size.batches, ("float32", "bfloat16"), (False, True)):
        yield functools.partial(measured, bench, How(precision, last, "", batch))


def compiled_part(bench: Bench) -> Iterator[Callable[[], Row]]:
    """torch.compile of the fastest configuration, then with CUDA graphs."""
    for mode in ("default", "reduce-overhead") if bench.device.type == "cuda" else (TRACED,):
        yield functools.partial(measured, bench, replace(bench.best, compiled=mode))


def case_part(bench: Bench) -> Iterator[Callable[[], Row]]:
    """A whole case through `predict`: as the commands plan it, and in the fastest configuration."""
    image, side = bench.volume, bench.size.window
    sliding = Sliding((side, side, side), 0.25, "gaussian")

    def over(name: str, backend: Any) -> Row:
        bench.reset_peak()
        backend.run(image[None, :, :side, :side, :side])
        bench.synchronise()
        start = time.perf_counter()
        predict(image, backend, sliding)
        seconds = round(time.perf_counter() - start, 3)
        count = count_windows(image.shape[1:], sliding, np.ones(image.shape[1:], bool))
        return {"how": name, "windows": count, "seconds_a_case": seconds, "peak_gib": bench.peak_gib()}

    def planned() -> Row:
        chosen = plan(image.shape, (side, side, side), bench.device.type)
        return {**over("as planned", open_backend(bench.net, bench.info, chosen, print)), "plan": asdict(chosen)}

    yield planned
    best = bench.best
    yield lambda: {**over("fastest", Runner(bench.net, bench.info, best, bench.device)), **asdict(best)}


def step_down_part(bench: Bench) -> Iterator[Callable[[], Row]]:
    """Memory limits under which a batch of four does not fit, then not even one window; needs CUDA."""
    for largest in (1, 0):
        yield functools.partial(step_down, bench, largest)


def step_down(bench: Bench, largest: int) -> Row:
    """Limit the GPU's memory to less than ``largest`` + 1 windows need; what the backend says and gives."""
    if bench.device.type != "cuda":
        return {"skipped": "a limit of memory can only be set for CUDA"}
    four = np.concatenate([bench.windows] * 2)
    needs = {}
    for batch in (1, 4):
        bench.reset_peak()
        Runner(bench.net, bench.info, How(batch=batch), bench.device).run(four[:batch])
        needs[batch] = torch.cuda.max_memory_reserved()
    limit = (needs[1] + needs[4]) // 2 if largest else needs[1] // 2
    said: list[str] = []
    bench.reset_peak()
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(bench.device).total_memory)
    try:
        backend = open_backend(bench.net, bench.info, Plan("cuda", "torch", "float32", 4, 0), said.append)
        found = backend.run(four)[:2] >= 0.5
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return {
        "limit_gib": round(limit / 2**30, 3),
        "warnings": said,
        "device": backend.plan.device,
        "batch": backend.plan.batch,
        "dice_with_cpu": dice(found, bench.expected),
    }


@dataclass(frozen=True)
class Step:
    """How a step of the training computes, besides `How`; ``parts`` of a batch are accumulated into one update."""

    how: How
    synchronised: bool = True
    parts: int = 1
    checkpointed: bool = False


def steps_of(bench: Bench) -> Iterator[Step]:
    """As `airwayseg-train fit` does, then one change after the other."""
    fast = How("bfloat16", True)
    yield Step(How("float32"))
    yield Step(How("bfloat16"))
    yield Step(fast)
    yield Step(fast, synchronised=False)
    yield Step(fast, synchronised=False, parts=2)
    yield Step(fast, synchronised=False, checkpointed=True)
    mode = "default" if bench.device.type == "cuda" else TRACED
    yield Step(replace(fast, compiled=mode), synchronised=False)


def training_part(bench: Bench) -> Iterator[Callable[[], Row]]:
    """Steps a second on batches that are there already, by size of the patch."""
    for step, patch in itertools.product(steps_of(bench), bench.size.patches):
        yield functools.partial(trained, bench, patch, step)


def trained(bench: Bench, patch: int, step: Step) -> Row:
    """Steps a second and peak memory of one way to train."""
    stage, ready = batches_of(bench, patch)
    settings = FitSettings(precision=step.how.precision, workers=0)
    recipe = replace(bench.recipe, stages=(stage,))
    bench.reset_peak()
    run = start_run(settings, recipe, bench.cases, bench.device)
    if step.how.channels_last:
        moved: Any = run.net
        run.net = moved.to(memory_format=torch.channels_last_3d)
    stage = run.enter(0)
    run.net.train()
    if step.checkpointed:
        for block in [*run.net.encoder, *run.net.decoder]:
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    net = compiled(run.net, step.how.compiled) if step.how.compiled else run.net
    team, batch = Team(0, 1, bench.device), ready[0]
    if step.synchronised:
        seconds = bench.seconds_of(lambda: train_step(net, run, stage, dict(batch), team))
    else:
        here = {name: part.to(bench.device) for name, part in batch.items()}
        seconds = bench.seconds_of(lambda: step_without_waiting(net, run, stage, here, step.parts))
    how = {**asdict(step.how), "batch": stage.batch}
    what = {"synchronised": step.synchronised, "parts": step.parts, "checkpointed": step.checkpointed}
    figures = {"steps_a_second": round(1 / seconds, 3), "patches_a_second": round(stage.batch / seconds, 3)}
    return {"patch": patch, **how, **what, **figures, "peak_gib": bench.peak_gib()}


def step_without_waiting(net: Any, run: Run, stage: Stage, batch: dict[str, Tensor], parts: int) -> None:
    """An update that reads nothing back from the GPU."""
    run.optimizer.zero_grad(set_to_none=True)
    size = stage.batch // parts
    for first in range(0, size * parts, size):
        part = {name: tensor[first : first + size] for name, tensor in batch.items()}
        with in_precision(run.settings.precision, part["image"].device):
            encoder, decoder = net(part.pop("image"))
        loss = stage_loss(stage, encoder, part, of_encoder=True) + stage_loss(stage, decoder, part)
        (loss / parts).backward()
    nn.utils.clip_grad_norm_(run.net.parameters(), stage.clip)
    run.optimizer.step()


def batches_of(bench: Bench, patch: int) -> tuple[Stage, Batches]:
    """The recipe's stage with patches of this side, and its batches."""
    stage = replace(bench.recipe.stages[0], patch=patch, batch=2)
    return stage, Batches(Source([bench.cases], np.ones(1), bench.recipe.network.windows_hu, 0), stage)


def pipeline_part(bench: Bench) -> Iterator[Callable[[], Row]]:
    """Patches a second that so many worker processes deliver."""
    for workers, patch in itertools.product(bench.size.workers, bench.size.patches):
        yield functools.partial(delivered, bench, patch, workers)


def delivered(bench: Bench, patch: int, workers: int) -> Row:
    """Patches a second after the workers' start; each worker makes a few batches."""
    stage, data = batches_of(bench, patch)
    count = 1 + 4 * max(1, workers)
    batches = loader(data, range(count), workers, bench.device, ahead=2)
    next(batches)
    start = time.perf_counter()
    made = stage.batch * sum(1 for _ in batches)
    seconds = time.perf_counter() - start
    return {"patch": patch, "workers": workers, "patches_a_second": round(made / seconds, 3)}


PARTS: dict[str, tuple[float, Callable[[Bench], Iterator[Callable[[], Row]]]]] = {
    "windows": (0.25, windows_part),
    "case": (0.1, case_part),
    "training": (0.25, training_part),
    "pipeline": (0.15, pipeline_part),
    "step_down": (0.1, step_down_part),
    "compiled": (0.15, compiled_part),
}
"""Every part with its share of the time; what may take long is last."""


def measure(bench: Bench, minutes: float, out: Path, results: dict[str, Any]) -> None:
    """All parts; each may take its share of the time that is left, by which it begins its last row."""
    end, left = time.monotonic() + 60 * minutes, sum(share for share, _ in PARTS.values())
    for name, (share, part) in PARTS.items():
        until = time.monotonic() + max(0.0, end - time.monotonic()) * share / left
        left -= share
        rows: list[Row] = results["parts"].setdefault(name, [])
        for row in part(bench):
            if rows and time.monotonic() >= until:
                rows.append({"left_out": "the part's time was over"})
                break
            begun = time.perf_counter()
            try:
                rows.append(row())
            except Exception as error:  # such as a lack of memory or an operator: it is a result, and the rest goes on
                rows.append({"error": f"{type(error).__name__}: {error}".splitlines()[0], "row": repr(row)[:300]})
            rows[-1]["took_seconds"] = round(time.perf_counter() - begun, 2)
            print(name, json.dumps(rows[-1]), flush=True)
            save(out, results)
        save(out, results)


def save(out: Path, results: dict[str, Any]) -> None:
    """Write what is known."""
    write_text(out / "results.json", json.dumps(results, indent=1))


def about(device: torch.device) -> dict[str, Any]:
    """The machine."""
    found: dict[str, Any] = {"torch": torch.__version__, "cpus": os.cpu_count(), "threads": torch.get_num_threads()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"tf32_in_float32_convolutions": torch.backends.cudnn.allow_tf32}
        found |= {"gpu": properties.name, "gib": round(properties.total_memory / 2**30, 1)}
    return {"device": str(device), **found}


def cases_of(options: argparse.Namespace, recipe: Recipe, folder: Path) -> list[Case]:
    """The cases from which windows and patches are cut."""
    maps = case_maps(recipe.stages[0])
    if options.data is None and options.size == "small":
        return rehearsal_cases(rehearsal_file(), maps)[0][:1]
    if options.data is None:
        simulate(folder, 1, 1, lambda *_: None, clean=True, workers=1)
    return [prepared_case(case, maps) for case in case_folders(options.data or folder)[:4]]


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, and say by the exit code whether no row has an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--size", default="full", choices=SIZES)
    parser.add_argument("--data", type=Path, help="a folder with cases/<id>/{ct,label}.nrrd")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu.py: PyTorch finds no CUDA device; --device cpu --size small tries the program.", file=sys.stderr)
        return 2
    start, device = time.monotonic(), torch.device(options.device)
    options.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": about(device), "size": options.size, "parts": {}}
    save(options.output, results)
    size, recipe = SIZES[options.size], load_recipe("default")
    with tempfile.TemporaryDirectory() as folder:
        net, info, _ = load_weights()
        info = replace(info, patch_zyx=(size.window, size.window, size.window))
        bench = Bench(device, size, net, info, cases_of(options, recipe, Path(folder)), recipe)
        measure(bench, options.minutes - (time.monotonic() - start) / 60, options.output, results)
    failed = [name for name, rows in results["parts"].items() if any("error" in row for row in rows)]
    print(f"{options.output / 'results.json'}: {len(PARTS) - len(failed)} of {len(PARTS)} parts without an error")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
