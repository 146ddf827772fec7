"""The program `megbrain`: reads the arguments, runs a command, shows errors without traceback."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from megbrain_py.cli.bench import add_bench
from megbrain_py.cli.plan import add_plan
from megbrain_py.errors import MegBrainError

USER_ERROR = 2  # exit code of anything that the person who typed can put right


class _Parser(argparse.ArgumentParser):
    """Names the nearest command when an unknown one is given."""

    def error(self, message: str) -> NoReturn:
        if "invalid choice:" in message and "command" in message:
            from megbrain_py.training.settings import nearest

            name = message.split("invalid choice: ", 1)[1].split(" (", 1)[0].strip("'\"")
            message = f"no command {name}{nearest(name, _COMMANDS)}"
        self.print_usage(sys.stderr)
        self.exit(USER_ERROR, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="megbrain", description="Train and use object detectors.")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    train = commands.add_parser("train", help="train a detector on COCO-format data")
    train.add_argument(
        "settings", nargs="*", metavar="CONFIG.toml | key=value",
        help="a configuration file, then single settings such as data.train=train.json steps=500",
    )  # fmt: skip
    train.add_argument(
        "--resume", nargs="?", const="", metavar="RUN",
        help="go on with the newest checkpoint of a run (its folder, or output= of the settings)",
    )  # fmt: skip
    train.add_argument("--show-config", action="store_true", help="print all settings and stop")

    evaluate = commands.add_parser("eval", help="COCO figures of a trained detector")
    _add_model(evaluate)
    evaluate.add_argument(
        "--data", metavar="ANN.json", help="annotations; default: the run's data.val"
    )
    evaluate.add_argument(
        "--images", metavar="DIR", help="pictures; default: beside the annotations"
    )
    evaluate.add_argument("-o", "--output", metavar="FILE.json", help="also write all detections")
    evaluate.add_argument("--batch", type=int, default=4, help="pictures at a time")

    predict = commands.add_parser("predict", help="draw the objects of pictures, write COCO JSON")
    _add_model(predict)
    predict.add_argument("pictures", nargs="+", metavar="file|folder", help="pictures to look at")
    predict.add_argument("-o", "--output", default="predictions", metavar="DIR", help="where to")
    predict.add_argument("--score", type=float, default=0.5, help="least score that is drawn")

    check = commands.add_parser("check-data", help="find mistakes in a COCO-format data set")
    check.add_argument("annotations", metavar="ANN.json")
    check.add_argument("images", nargs="?", metavar="DIR", help="default: beside the annotations")
    check.add_argument("--examples", type=int, default=3, help="shown of each kind")

    info = commands.add_parser("info", help="versions and processor; contents of a checkpoint")
    info.add_argument("file", nargs="?", metavar="FILE", help="a checkpoint, or a run's folder")

    test = commands.add_parser("test-op", help="run an operator's cases on this machine")
    test.add_argument(
        "name", nargs="+", metavar="NAME|FOLDER",
        help='an operator room; "all": every one of the package; a folder: one outside of it',
    )  # fmt: skip

    build = commands.add_parser("build-op", help="compile the C++ of operators outside the package")
    build.add_argument("folder", nargs="+", metavar="FOLDER", help="a room with *_cpu.cpp")

    new = commands.add_parser("new-op", help="write a small operator to start from, in a folder")
    new.add_argument("folder", metavar="FOLDER", help="new; its name is the operator's")
    add_bench(commands)
    add_plan(commands)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="RUN", help="a run's folder, its configuration, or a checkpoint"
    )
    parser.add_argument(
        "--checkpoint", choices=("best", "latest"), default="best", help="which one of a run"
    )


_COMMANDS = (
    "train", "eval", "predict", "check-data", "info", "test-op", "build-op", "new-op", "bench",
    "plan",
)  # fmt: skip


def _run(arguments: argparse.Namespace) -> int:
    command = arguments.command
    if command == "train":
        from megbrain_py.cli.train import train

        return train(arguments.settings, arguments.resume, show=arguments.show_config)
    if command == "eval":
        from megbrain_py.cli.detect import evaluate

        return evaluate(arguments)
    if command == "predict":
        from megbrain_py.cli.detect import predict

        return predict(arguments)
    if command == "check-data":
        from megbrain_py.cli.look import check_data

        return check_data(arguments.annotations, arguments.images, arguments.examples)
    if command == "info":
        from megbrain_py.cli.look import info

        return info(arguments.file)
    if command == "bench":
        from megbrain_py.cli.bench import bench

        return bench(arguments)
    if command == "plan":
        from megbrain_py.cli.plan import plan

        return plan(arguments)
    return _run_on_operators(arguments)


def _run_on_operators(arguments: argparse.Namespace) -> int:
    if arguments.command == "build-op":
        from megbrain_py.cli.own_op import build_op

        return build_op(arguments.folder)
    if arguments.command == "new-op":
        from megbrain_py.cli.own_op import new_op

        return new_op(arguments.folder)
    from megbrain_py.cli.test_op import test_op

    return test_op(arguments.name)


def main(words: Sequence[str] | None = None) -> int:
    """Run the program; the exit code: 0 done, 1 a check failed, 2 a mistake of the user.

    130 after Ctrl-C. Errors of this package print their message; other exceptions are bugs and
    show a traceback.
    """
    arguments = _parser().parse_args(words)
    try:
        return _run(arguments)
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing left to flush to
        return 0
    except KeyboardInterrupt:
        print("megbrain: interrupted", file=sys.stderr)
        return 130
    except (MegBrainError, OSError) as error:
        if arguments.traceback:
            raise
        print(f"megbrain {arguments.command}: {error}", file=sys.stderr)
        return USER_ERROR
