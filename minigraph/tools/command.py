"""The command line: minigraph COMMAND FILE ..., each command a function of its options here.

The exit status is 0; 1 where a file, a graph or an answer is refused, with a sentence that says why; 2 for a command
line that cannot be read; 130 after Ctrl-C. What only one command needs is imported by it, so that each begins at once.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from importlib import import_module
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from minigraph.backends.cupy.arrays import at_home
from minigraph.backends.plan import Plan, batch_symbol
from minigraph.core.dtypes import is_float
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Graph, needed
from minigraph.core.pipeline import Optimized, Pass, Pipeline
from minigraph.core.state import State
from minigraph.driver.program import Program, compile
from minigraph.driver.program import optimize as run_passes
from minigraph.driver.step import PRECISIONS, inference
from minigraph.passes.pipelines import BEFORE_AUTODIFF, TRAINING
from minigraph.tools import files

DEMO = "out/digits/digits.safetensors"
TOUR = f"""\
FILE is a saved graph: mg.save("net.safetensors", graph, state) writes one, and so does `make demo`. Or it is a model
of ONNX, net.onnx. With that of `make demo`:

  minigraph summary  {DEMO} N=64
  minigraph draw     {DEMO} -o digits.svg
  minigraph run      {DEMO} --random
  minigraph explain  {DEMO} bn1
  minigraph profile  {DEMO} --batch 64
  minigraph optimize {DEMO} -o fast.safetensors --verify

`minigraph COMMAND --help` says what a command takes, with an example.
"""
SHOWN = 5  # numbers of an output
BATCH = 32  # the batch that a plan or a profile is made for, where nothing says another


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status. SystemExit for --help and for a command line that cannot be read."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that a terminal cannot show
    try:
        try:
            return _status(_parser().parse_args(arguments))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130


def _status(options: argparse.Namespace) -> int:
    try:
        for module in options.modules:
            _module(module)
        options.command(options)
        return 0
    except GraphError as error:
        why = str(error)
    except BrokenPipeError:
        raise
    except MemoryError as error:
        why = f"this needs more memory than there is: {str(error) or 'smaller sizes need less'}"
    except OSError as error:
        why = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    sys.stdout.flush()
    print(f"minigraph: {why}", file=sys.stderr)
    return 1


def draw(options: argparse.Namespace) -> None:
    graph, _ = _loaded(options)
    after = files.load(options.after)[0] if options.after else None
    _draw(
        graph,
        options.output,
        after=after,
        collapse=not options.all,
        expand=options.expand,
        timeout=options.timeout,
    )


def summary(options: argparse.Namespace) -> None:
    from minigraph.tools.summary import summary

    print(summary(_loaded(options)[0], **dict(options.sizes)))


def text(options: argparse.Namespace) -> None:
    print(_loaded(options)[0], end="")


def explain(options: argparse.Namespace) -> None:
    from minigraph.tools.explain import explanation

    optimized, _ = _optimized(options)
    print(explanation(optimized, options.node))
    if options.draw:
        _draw(optimized.source, options.draw, after=optimized.graph, reasons=optimized.refused)


def optimize(options: argparse.Namespace) -> None:
    from minigraph.tools.explain import explanation, nodes_of_a_run, table

    files.check_ending(options.output)
    itself = options.output.exists() and options.output.samefile(options.file)
    expect(not itself, "{} is the graph before: what it lost could not be had back; give another -o", options.output)
    optimized, state = _optimized(options)
    print(table(optimized))
    if options.explain:
        print(f"\n{explanation(optimized)}\n")
    if options.page:
        from minigraph.tools.page import page

        print(f"wrote {page(optimized, options.page)}")
    if options.verify:
        from minigraph.core.equivalence import verify

        report = verify(optimized.source, optimized.graph, state=state)
        print(report)
        expect(report.same, "the optimized graph does not compute the same as the one before, and is not written")
    files.save(options.output, optimized.graph, state)
    nodes = f"{len(optimized.graph.nodes)} nodes, {len(optimized.graph.state)} states"
    if files.is_onnx(options.output):  # which has what is computed of parameters alone as numbers
        nodes = f"{nodes_of_a_run(optimized.graph)} nodes"
    print(f"wrote {options.output}: {nodes}")


def run(options: argparse.Namespace) -> None:
    from minigraph.tools.given import write_arrays

    graph, state = _with_state(options)
    graph = graph.prune(options.outputs, updates=False)
    outputs = at_home(compile(graph, state, options.backend)(**_inputs(graph, options)))
    if options.output is None:
        width = max(map(len, outputs), default=0)
        for name, array in outputs.items():
            print(f"{name:{width}}  {_numbers(array)}")
    else:
        write_arrays(options.output, outputs)
        print(f"wrote {options.output}: {', '.join(outputs)}")


def plan(options: argparse.Namespace) -> None:
    program, inputs = _program(options, "c")
    program(**inputs)
    if options.output:
        _draw(program.plan, options.output, timeout=options.timeout)
    else:
        print(program.plan)


def profile(options: argparse.Namespace) -> None:
    program, inputs = _program(options, options.backend)
    found = program.profile(options.repeats, **inputs)
    print(found.table(options.rows))
    if options.output:
        _draw(program.graph, options.output, profile=found, collapse=False, timeout=options.timeout)


def export(options: argparse.Namespace) -> None:
    graph, state = _answering_or_training(options)
    place = compile(graph, state, "c").export(options.out, **dict(options.sizes))
    print(f"wrote {place}: {', '.join(v.name for v in graph.inputs)} -> {', '.join(graph.outputs)}")


def doctor(options: argparse.Namespace) -> None:
    if options.gpu == (options.file is not None):
        options.refuse("give either FILE or --gpu")
    if options.gpu:
        from minigraph.tools.gpu import examined

        for line in examined():
            print(line, flush=True)
        return
    from minigraph.tools.doctor import doctor
    from minigraph.tools.given import read_inputs

    graph, state = _with_state(options)
    print(doctor(graph, state, read_inputs(graph, options.input)))


def check(options: argparse.Namespace) -> None:
    if options.other is not None:
        _check_same(options)
        return
    graph, state = _loaded(options)  # which checks the graph, and the state against it
    print(f"{graph.name}: {len(graph.nodes)} nodes, each defined before its use, with the types that its op infers")
    if state is None:
        print("state: none in the file")
    else:
        count = sum(array.size for array in state.values())
        print(f"state: {len(state)} arrays, {count:,} numbers, as the graph declares them")
        made = [name for name in graph.variables if name not in state]
        if made:
            print(f"not in the file, begins anew: {', '.join(made)}")
    _, live = needed(graph.nodes, (*graph.outputs.values(), *graph.updates.values()))
    unused = [v.name for v in graph.state if v.value not in live and v.value not in graph.updates]
    if unused:
        print(f"no output needs: {', '.join(unused)}")
    idle = [value.name for value in graph.inputs if value not in live]
    if idle:
        print(f"no output needs the inputs: {', '.join(idle)}")
    broken = [
        f"{name} has {bad} of {array.size}"
        for name, array in (state or {}).items()
        if is_float(array.dtype) and (bad := array.size - int(np.isfinite(array).sum()))
    ]
    expect(not broken, "{} has numbers that are NaN or infinite: {}", options.file, "; ".join(broken))
    print("fine")


def cache(options: argparse.Namespace) -> None:
    from minigraph.backends.c import cache

    if options.what == "where":
        print(cache.where())
        return
    found = cache.clear() if options.what == "clear" else cache.entries()
    if options.what == "list":
        for entry in found:
            used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
            print(f"{entry.folder.name[:12]}  {entry.bytes / 1e6:8.2f} MB  used {used}  {entry.title}".rstrip())
    done = "removed from" if options.what == "clear" else "in"
    print(f"{len(found)} libraries, {sum(entry.bytes for entry in found) / 1e6:.2f} MB, {done} {cache.where()}")


def _answering_or_training(options: argparse.Namespace) -> tuple[Graph, State]:
    """The graph of the file, as far as --outputs need it: the one that answers or, with --training, as it is."""
    graph, state = _with_state(options)
    if options.training:
        _check_step(graph, options)
        return graph.prune(options.outputs), state
    return inference(graph, options.outputs, precision=options.precision), state


def _check_step(graph: Graph, options: argparse.Namespace) -> None:
    """Raise GraphError unless the graph is a training step that is wanted as it is."""
    expect(graph.updates, "{!r} has no updates, it is no training step: leave out --training", graph.name)
    expect(
        options.precision is None,
        "{!r} is a training step, whose precision was chosen when it was made: leave out --precision",
        graph.name,
    )


def _program(options: argparse.Namespace, backend: str) -> tuple[Program, dict[str, np.ndarray]]:
    """What the file holds, compiled, and inputs for it: those of --input, and random numbers for the others."""
    from minigraph.tools.given import random_inputs, read_inputs

    graph, state = _answering_or_training(options)
    given, sizes, batch = read_inputs(graph, options.input), dict(options.sizes), batch_symbol(graph)
    if options.batch is not None:
        expect(batch, "{!r} has no size that is that of a batch: leave out --batch", graph.name)
        expect(batch not in sizes, "the batch has two sizes, {} and {}={}", options.batch, batch, sizes.get(batch))
        sizes[batch] = options.batch
    elif batch and not given:
        sizes.setdefault(batch, BATCH)
    return compile(graph, state, backend), random_inputs(graph, given, sizes)


def _draw(graph: Graph | Plan, output: str, **options: Any) -> None:
    from minigraph.tools.draw import draw

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        path = draw(graph, output, **options)
    for warning in said:
        print(f"minigraph: {warning.message}", file=sys.stderr)
    print(f"wrote {path}")


def _optimized(options: argparse.Namespace) -> tuple[Optimized, State | None]:
    """The graph of the file after the pipeline, and the state of the file.

    Without --training it is first made the graph that answers.
    """
    graph, state = _loaded(options)
    if options.training:
        _check_step(graph, options)
    else:
        answering = inference(graph)
        if str(answering) != str(graph):
            print("for inference: running statistics, no dropout, no updates (--training keeps them)\n")
        graph = inference(answering, precision=options.precision)
    return run_passes(graph, state, pipeline=_pipeline(options, graph), without=options.without), state


def _pipeline(options: argparse.Namespace, graph: Graph) -> Pipeline | None:
    """What --pipeline or --pass name; None for the pipeline of minigraph's own.

    A model that is to be trained also gets the passes that come before its gradient.
    """
    if options.pipeline:
        pipeline = _named(options.pipeline)
        fits = isinstance(pipeline, (tuple, list)) and all(isinstance(p, Pass) or callable(p) for p in pipeline)
        expect(fits, "{} is no pipeline: that is a tuple of passes", options.pipeline)
        return tuple(pipeline)
    if options.passes:
        passes = tuple(_named(name) for name in options.passes)
        for name, one in zip(options.passes, passes):
            expect(isinstance(one, Pass) or callable(one), "{} is no pass: that is a Pass or a function", name)
        return passes
    if options.training and "optimizer.step" not in graph.variables:
        return (*BEFORE_AUTODIFF, *TRAINING)
    return None


def _named(name: str) -> Any:
    """The thing that module:NAME names."""
    module, _, thing = name.partition(":")
    found = _module(module)
    expect(hasattr(found, thing), "{} has no {!r}", module, thing)
    return getattr(found, thing)


def _loaded(options: argparse.Namespace) -> tuple[Graph, State | None]:
    """What the file holds."""
    return files.load(options.file, dict(options.values))


def _with_state(options: argparse.Namespace) -> tuple[Graph, State]:
    return _complete(options.file, *_loaded(options))


def _complete(file: Path, graph: Graph, state: State | None) -> tuple[Graph, State]:
    if state is None:
        raise GraphError(f"{file} holds a graph without its state: write it with mg.save(path, graph, state)")
    return graph, state


def _other(options: argparse.Namespace) -> tuple[Graph, State | None]:
    """What the second file holds; it may do without the values that the first one needs."""
    try:
        return files.load(options.other, dict(options.values))
    except GraphError:
        if not options.values:
            raise
        return files.load(options.other)


def _check_same(options: argparse.Namespace) -> None:
    """Whether two files hold the same function."""
    from minigraph.tools.same import same

    one = _with_state(options)
    report = same(*one, *_complete(options.other, *_other(options)))
    expect(report.same, "{} and {} hold different functions: {}", options.file, options.other, report.why)
    print(report)


def _inputs(graph: Graph, options: argparse.Namespace) -> dict[str, np.ndarray]:
    """What --input gives and, with --random, numbers for the other inputs."""
    from minigraph.tools.given import random_inputs, read_inputs

    given = read_inputs(graph, options.input)
    if options.random is not None:
        return random_inputs(graph, given, dict(options.random))
    missing = [str(value) for value in graph.inputs if value.name not in given]
    expect(
        not missing,
        "{!r} also needs {}: give name=file.npy, or --random for a first try, or name --outputs that do without",
        graph.name,
        ", ".join(missing),
    )
    return given


def _numbers(array: np.ndarray) -> str:
    """dtype[sizes], the extent of the numbers, and the first of them."""
    form = f"{array.dtype}[{', '.join(map(str, array.shape))}]"
    if not array.size:
        return f"{form}  empty"
    first = " ".join(f"{number:.6g}" for number in array.reshape(-1)[:SHOWN].tolist())
    more = " ..." if array.size > SHOWN else ""
    if array.size == 1:
        return f"{form}  {first}"
    with np.errstate(all="ignore"):
        wide = array.astype("float64")
        extent = f"min {wide.min():.6g}  mean {wide.mean():.6g}  max {wide.max():.6g}"
    return f"{form}  {extent}  first {first}{more}"


def _module(name: str) -> Any:
    """A module by its name, also of the folder that we are in."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return import_module(name)
    except (ImportError, SyntaxError) as error:  # what else the module raises is its author's, with the traceback
        raise GraphError(f"cannot import {name}: {error}") from None


# The command line itself


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"minigraph: {message}; `{self.prog} --help` says more\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "minigraph",
        description="Look at a saved graph, improve it, and run it.",
        epilog=TOUR,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"minigraph {version('minigraph')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = partial(_add_command, commands)
    _add_views(command)
    _add_passes(command)
    _add_runs(command)
    _add_programs(command)
    about = "list the compiled programs that are kept for the next time, or clear them, or say where they are"
    one = commands.add_parser("cache", help=about, description=f"{about[0].upper()}{about[1:]}.")
    one.add_argument("what", choices=("list", "clear", "where"), nargs="?", default="list", help="list, if left out")
    one.set_defaults(command=cache, modules=[])
    return parser


def _add_command(
    commands: argparse._SubParsersAction[_Parser],
    function: Callable[[argparse.Namespace], None],
    about: str,
    example: str,
    takes: str = "FILE [options]",
    needs_file: bool = True,
) -> argparse.ArgumentParser:
    """The parser of a command, which is called as its function. takes: what its usage says behind the name."""
    name = function.__name__
    one = commands.add_parser(
        name,
        usage=f"minigraph {name} {takes}",
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=f"example:\n  minigraph {name} {DEMO} {example}".rstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.set_defaults(command=function)
    nargs = None if needs_file else "?"
    one.add_argument(
        "file", metavar="FILE", nargs=nargs, type=Path, help="a saved graph, .safetensors, or a model, .onnx"
    )
    one.add_argument(
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="import this module first: for ops of your own",
    )
    one.add_argument(
        "--value",
        dest="values",
        metavar="NAME=NUMBERS",
        type=_value,
        action="append",
        default=[],
        help="of a .onnx file: what an input (such as a shape) or an open size is, 48 or 1,3,48; may be repeated",
    )
    return one


Command = Callable[..., argparse.ArgumentParser]  # (function, about, example, ...) -> the parser of its options


def _add_views(command: Command) -> None:
    """Those that show a graph."""
    one = command(draw, "draw a picture of the graph", "-o digits.svg --expand 'conv*'")
    one.add_argument(
        "-o", "--output", metavar="PICTURE", default="net.svg", help="a .svg, .png, .pdf or .dot file (net.svg)"
    )
    one.add_argument("--after", metavar="FILE2", type=Path, help="what the graph became: both are drawn, side by side")
    one.add_argument(
        "--expand",
        metavar="LAYER",
        nargs="+",
        action="extend",
        default=[],
        help="layers whose nodes are drawn one by one: bn1 'layer2.*' '*'",
    )
    one.add_argument("--all", action="store_true", help="draw each of the layers that repeat, not the first alone")
    one.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=60.0, help="after which Graphviz is stopped (60)"
    )

    one = command(summary, "print a table of the layers: shapes, parameters, operations", "N=64", "FILE [N=SIZE ...]")
    one.add_argument(
        "sizes", metavar="N=SIZE", type=_size, nargs="*", default=[], help="sizes that are known only at run time"
    )

    command(text, "print the graph as text, which diff and mg.parse read", "> digits.txt")


def _add_passes(command: Command) -> None:
    """Those that send a graph through passes."""
    about = "say what each pass does to the graph, and why it does not do more"
    one = command(explain, about, "bn1", "FILE [NODE] [options]")
    one.add_argument(
        "node", metavar="NODE", nargs="?", default="", help="only what concerns this node; bn3 means every bn3.*, too"
    )
    one.add_argument("--draw", metavar="PICTURE", help="draw the graph before and after, with the reasons")
    _add_pipeline(one)

    about = "run the passes and write the graph that they give"
    one = command(optimize, about, "-o fast.safetensors --verify", "FILE -o OUT [options]")
    one.add_argument(
        "-o", "--output", metavar="OUT", type=Path, required=True, help="the .safetensors or .onnx file to write"
    )
    one.add_argument("--explain", action="store_true", help="say what each pass did, and why not more")
    one.add_argument(
        "--verify", action="store_true", help="prove that it computes the same; if it does not, write no graph"
    )
    one.add_argument(
        "--page", metavar="PAGE.html", help="a page that shows the graph pass by pass, also if it is refuted"
    )
    _add_pipeline(one)


def _add_runs(command: Command) -> None:
    """Those that run a graph, or examine one."""
    one = command(
        run, "run the graph as it is on arrays, and print or write its outputs", "--input image=image.npy -o out.npz"
    )
    _add_input(one)
    one.add_argument(
        "--random",
        metavar="N=SIZE",
        type=_size,
        nargs="*",
        help="random numbers for the inputs that are not given, of these sizes (4)",
    )
    one.add_argument(
        "--backend", default="auto", help="what computes: cupy, c, numpy, or auto, the fastest that answers"
    )
    one.add_argument("-o", "--output", metavar="OUT", type=Path, help="write the outputs to this .npz file")
    one.add_argument(
        "--outputs", metavar="NAME", nargs="+", action="extend", help="these outputs alone, and only what they need"
    )

    about = "check the graph, its state and whether its numbers are finite; of two files, whether they do the same"
    one = command(check, about, "fast.safetensors", "FILE [FILE2] [options]")
    one.add_argument("other", metavar="FILE2", nargs="?", type=Path, help="whether it computes what the first one does")

    about = "examine every batch norm on one batch of data; or, with --gpu, the GPU of this machine"
    one = command(doctor, about, "--input image=image.npy", "FILE [options] | --gpu", needs_file=False)
    _add_input(one)
    one.add_argument("--gpu", action="store_true", help="say what GPU there is, and what programs on it are missing")
    one.set_defaults(refuse=one.error)


def _add_programs(command: Command) -> None:
    """Those that compile the graph that answers."""
    about = "compile the graph that answers, for C programs and for mg.load_program where there is no compiler"
    one = command(export, about, "N=64 --out digits --outputs logits", "FILE [N=SIZE ...] --out FOLDER [options]")
    one.add_argument(
        "sizes", metavar="N=SIZE", type=_size, nargs="*", default=[], help="the largest batch; other sizes"
    )
    one.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="whose name the names in C begin with")
    one.add_argument(
        "--outputs", metavar="NAME", nargs="+", action="extend", help="these alone, and only what they need"
    )
    one.add_argument("--training", action="store_true", help="keep the updates: a step that moves the weights")
    _add_precision(one)

    about = "compile the graph that answers, and show its steps, what they compute and move, and where values lie"
    one = command(plan, about, "--batch 64 -o plan.svg", "FILE [N=SIZE ...] [options]")
    _add_trial(one)
    one.add_argument("-o", "--output", metavar="PICTURE", help="draw it to this .svg file (.png and .pdf: steps alone)")

    about = "run the graph that answers, and show where the time goes: by step, and by layer"
    one = command(profile, about, "--batch 64 -o time.svg", "FILE [N=SIZE ...] [options]")
    _add_trial(one)
    one.add_argument(
        "--backend", default="auto", help="what computes: cupy, c, numpy, or auto, the fastest that answers"
    )
    one.add_argument("--repeats", metavar="RUNS", type=_count, default=10, help="the least of so many runs (10)")
    one.add_argument("--rows", metavar="ROWS", type=_count, default=25, help="of each table, the dearest first (25)")
    one.add_argument("-o", "--output", metavar="PICTURE", help="draw the graph with the times: .svg, .png, .pdf, .dot")


def _add_pipeline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--training",
        action="store_true",
        help="keep the updates, and take the passes for training: of a model, those before its gradient, too",
    )
    parser.add_argument(
        "--without", metavar="NAME", nargs="+", action="extend", default=[], help="leave out these passes, or rules"
    )
    _add_precision(parser)
    own = parser.add_mutually_exclusive_group()
    own.add_argument("--pipeline", metavar="MODULE:NAME", type=_place, help="a tuple of passes, for ours")
    own.add_argument(
        "--pass",
        dest="passes",
        metavar="MODULE:NAME",
        type=_place,
        action="append",
        help="only this pass, a Pass or a function from graph to graph; may be repeated",
    )


def _add_trial(parser: argparse.ArgumentParser) -> None:
    """What is compiled for a look at it, and with which inputs."""
    parser.add_argument("sizes", metavar="N=SIZE", type=_size, nargs="*", default=[], help="sizes of inputs")
    parser.add_argument("--batch", metavar="SIZE", type=_count, help=f"the size of the batch ({BATCH})")
    parser.add_argument(
        "--outputs", metavar="NAME", nargs="+", action="extend", help="these alone, and only what they need"
    )
    parser.add_argument("--training", action="store_true", help="keep the updates: a step that moves the weights")
    _add_precision(parser)
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=60.0, help="after which Graphviz is stopped (60)"
    )
    _add_input(parser)


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=[*PRECISIONS],
        help="of products and what lies between them, in the graph that answers; that of the model, if left out",
    )


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        metavar="NAME=FILE.npy",
        action="append",
        default=[],
        help="an input from a file; FILE.npz alone gives all that it holds by name; may be repeated",
    )


def _place(word: str) -> str:
    module, _, name = word.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise argparse.ArgumentTypeError(f"it is written like my_passes:fold, not {word!r}")
    return word


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"a time is a number of seconds above 0, not {word!r}")
    return seconds


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"it is a number from 1 on, not {word!r}")
    return int(word)


def _value(word: str) -> tuple[str, int | float | list[int | float]]:
    name, _, given = word.partition("=")
    try:
        numbers = [_number(part) for part in given.split(",") if part]
        if not name or not numbers:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"a value is written like height=48 or shape=1,3,48, not {word!r}") from None
    return name, numbers if "," in given else numbers[0]


def _number(word: str) -> int | float:
    try:
        return int(word)
    except ValueError:
        return float(word)


def _size(word: str) -> tuple[str, int]:
    name, _, number = word.partition("=")
    if not name.isidentifier() or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"a size is written like N=64, not {word!r}")
    return name, int(number)
