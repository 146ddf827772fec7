"""The program `megbrain`: reads the arguments, runs a command, shows errors without traceback."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from megbrain_py.cli.bench import add_bench
from megbrain_py.cli.compare import add_compare
from megbrain_py.cli.detect import add_test_time
from megbrain_py.cli.launch import add_launch
from megbrain_py.cli.plan import add_plan
from megbrain_py.cli.scale import add_scale
from megbrain_py.errors import MegBrainError

USER_ERROR = 2  # exit code of anything that the person who typed can put right


class _Parser(argparse.ArgumentParser):
    """Names the nearest command when an unknown one is given."""

    def error(self, message: str) -> NoReturn:
        if "invalid choice:" in message and "command" in message:
            from megbrain_py.training.settings import nearest

            name = message.split("invalid choice: ", 1)[1].split(" (", 1)[0].strip("'\"")
            message = f"no command {name}{nearest(name, _RUNS)}"
        self.print_usage(sys.stderr)
        self.exit(USER_ERROR, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="megbrain", description="Train and use object detectors.")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    _add_training(commands)
    add_launch(commands)
    _add_detection(commands)
    add_compare(commands)
    _add_looking(commands)
    _add_operators(commands)
    add_bench(commands)
    add_plan(commands)
    add_scale(commands)
    return parser


def _add_training(commands: Any) -> None:
    train = commands.add_parser("train", help="train a detector on COCO-format data")
    train.add_argument(
        "settings", nargs="*", metavar="CONFIG.toml | key=value",
        help="a configuration file, then single settings such as data.train=train.json steps=500",
    )  # fmt: skip
    train.add_argument(
        "--resume", nargs="?", const="", metavar="RUN",
        help="go on with the newest checkpoint of a run (its folder, or output= of the settings)",
    )  # fmt: skip
    train.add_argument(
        "--memory", metavar="SIZE",
        help="most memory of the compiled steps, such as 3GiB or, as a share, 0.5: memory=SIZE",
    )  # fmt: skip
    train.add_argument(
        "--batch",
        type=_batch,
        metavar="N|auto",
        default=(),
        help="pictures of a batch: batch_size=N; auto: as many as fit",
    )
    train.add_argument(
        "--devices", type=int, metavar="N", help="logical devices that share each batch: devices=N"
    )
    train.add_argument("--show-config", action="store_true", help="print all settings and stop")
    train.add_argument(
        "--show-memory", action="store_true",
        help="print what a step costs in time within less memory, draw it, and stop",
    )  # fmt: skip


def _add_detection(commands: Any) -> None:
    evaluate = commands.add_parser("eval", help="COCO figures of a trained detector")
    evaluate.add_argument(
        "model", nargs="+", metavar="RUN",
        help="a run's folder, its configuration, or a checkpoint; several answer together",
    )  # fmt: skip
    _add_checkpoint(evaluate)
    evaluate.add_argument(
        "--data", metavar="ANN.json", help="annotations; default: the run's data.val"
    )
    evaluate.add_argument(
        "--images", metavar="DIR", help="pictures; default: beside the annotations"
    )
    evaluate.add_argument("-o", "--output", metavar="FILE.json", help="also write all detections")
    evaluate.add_argument(
        "--pictures", metavar="DIR", help="also write classes.png, confusion.png, detections.png"
    )
    evaluate.add_argument(
        "--score", type=float, default=0.5, help="least score of the pictures' detections"
    )
    evaluate.add_argument("--batch", type=int, default=4, help="pictures at a time")
    add_test_time(evaluate)

    predict = commands.add_parser("predict", help="draw the objects of pictures, write COCO JSON")
    predict.add_argument(
        "words", nargs="+", metavar="RUN file|folder",
        help="a run as for eval, or several; then pictures to look at",
    )  # fmt: skip
    _add_checkpoint(predict)
    predict.add_argument("-o", "--output", default="predictions", metavar="DIR", help="where to")
    predict.add_argument("--score", type=float, default=0.5, help="least score that is drawn")
    add_test_time(predict)


def _add_looking(commands: Any) -> None:
    check = commands.add_parser("check-data", help="find mistakes in a COCO-format data set")
    check.add_argument("annotations", metavar="ANN.json")
    check.add_argument("images", nargs="?", metavar="DIR", help="default: beside the annotations")
    check.add_argument("--examples", type=int, default=3, help="shown of each kind")

    look = commands.add_parser("browse", help="a page with a data set's pictures and objects")
    look.add_argument("annotations", metavar="ANN.json")
    look.add_argument("images", nargs="?", metavar="DIR", help="default: beside the annotations")
    look.add_argument("-o", "--output", default="browse", metavar="DIR", help="where to")

    info = commands.add_parser("info", help="versions and processor; contents of a weights file")
    info.add_argument(
        "file", nargs="?", metavar="FILE", help="a run's folder, checkpoint, .pth or safetensors"
    )

    export = commands.add_parser("export", help="write a detector's weights for torchvision")
    export.add_argument("model", metavar="RUN", help="a run's folder or a checkpoint")
    _add_checkpoint(export)
    export.add_argument("file", metavar="FILE", help="to write: .pth or .safetensors")


def _add_operators(commands: Any) -> None:
    test = commands.add_parser("test-op", help="run an operator's cases on this machine")
    test.add_argument(
        "name", nargs="+", metavar="NAME|FOLDER",
        help='an operator room; "all": every one of the package; a folder: one outside of it',
    )  # fmt: skip

    build = commands.add_parser("build-op", help="compile the C++ of operators outside the package")
    build.add_argument("folder", nargs="+", metavar="FOLDER", help="a room with *_cpu.cpp")

    new = commands.add_parser("new-op", help="write a small operator to start from, in a folder")
    new.add_argument("folder", metavar="FOLDER", help="new; its name is the operator's")


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", choices=("best", "latest"), default="best", help="which one of a run"
    )


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; settings of a training may stand between and behind its options."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(words)
    if arguments.command == "train" and not any(word.startswith("-") for word in rest):
        arguments.settings += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def _batch(text: str) -> tuple[str, ...]:
    """The settings that a number of pictures, or auto, stands for."""
    if text == "auto":
        return ("fit_batch=true",)
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number of pictures or auto, found {text}")
    return f"batch_size={text}", "fit_batch=false"


def _train_words(arguments: argparse.Namespace) -> list[str]:
    """Settings, of which some have a flag of their own."""
    devices = [] if arguments.devices is None else [f"devices={arguments.devices}"]
    memory = [] if arguments.memory is None else [f"memory={arguments.memory}"]
    return [*arguments.settings, *devices, *memory, *arguments.batch]


def _show(arguments: argparse.Namespace) -> str:
    """What `train` shows instead of training."""
    return "config" if arguments.show_config else "memory" if arguments.show_memory else ""


def _module(name: str) -> Any:
    """A module of the commands: imported when its command runs, so that --help is quick."""
    return importlib.import_module(f"megbrain_py.cli.{name}")


_RUNS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "train": lambda a: _module("train").train(_train_words(a), a.resume, show=_show(a)),
    "launch": lambda a: _module("launch").launch(a),
    "eval": lambda a: _module("detect").evaluate(a),
    "predict": lambda a: _module("detect").predict(a),
    "compare": lambda a: _module("compare").compare(a),
    "check-data": lambda a: _module("look").check_data(a.annotations, a.images, a.examples),
    "browse": lambda a: _module("browse").browse(a.annotations, a.images, a.output),
    "info": lambda a: _module("look").info(a.file),
    "export": lambda a: _module("export").export(a.model, a.checkpoint, a.file),
    "test-op": lambda a: _module("test_op").test_op(a.name),
    "build-op": lambda a: _module("own_op").build_op(a.folder),
    "new-op": lambda a: _module("own_op").new_op(a.folder),
    "bench": lambda a: _module("bench").bench(a),
    "plan": lambda a: _module("plan").plan(a),
    "scale": lambda a: _module("scale").scale(a),
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the program; the exit code: 0 done, 1 a check failed, 2 a mistake of the user.

    130 after Ctrl-C. Errors of this package print their message; other exceptions are bugs and
    show a traceback.
    """
    arguments = _parse(words)
    try:
        return _RUNS[arguments.command](arguments)
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing left to flush to
        return 0
    except KeyboardInterrupt:
        print("megbrain: interrupted", file=sys.stderr)
        _end_others("interrupted")
        return 130
    except (MegBrainError, OSError) as error:
        if arguments.traceback:
            raise
        return _refuse(arguments.command, error)


def _refuse(command: str, error: Exception) -> int:
    """Say what is wrong. An error of one process among many ends the others too."""
    from megbrain_py import distributed
    from megbrain_py.training.shards import shared

    world, note = distributed.current(), shared(error)
    rank = None if world.size == 1 else world.rank if note is None else note.rank
    who = "" if rank is None else f"rank {rank}: "
    if world.rank == 0 or note is None:
        print(f"megbrain {command}: {who}{error}", file=sys.stderr, flush=True)
    if note is None:
        _end_others(str(error))
    return USER_ERROR


def _end_others(reason: str) -> None:
    """They would wait for this process, if it is one of MPI's; it ends with them then."""
    from megbrain_py import distributed

    sys.stdout.flush()
    sys.stderr.flush()
    distributed.abort(reason)
