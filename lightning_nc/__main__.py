"""``python -m lightning_nc``: a demo, a dry run, a report on a run, and a view for W&B."""

import argparse

from lightning_nc.commands import check, demo, report, wandb_view

_OTHERS = {"check": check, "report": report, "wandb-view": wandb_view}  # than the demo


def main(arguments: list[str] | None = None) -> None:
    """Run the command of the command line; without one, the demo."""
    description = f"Without a command: {demo.HELP}."
    parser = argparse.ArgumentParser(prog="python -m lightning_nc", description=description)
    demo.add_arguments(parser)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    # otherwise its defaults would overwrite options given before the command
    again = commands.add_parser("demo", help=demo.HELP, argument_default=argparse.SUPPRESS)
    demo.add_arguments(again, defaults=False)
    parsers = {None: parser, "demo": again}
    for name, command in _OTHERS.items():
        sentence = f"{command.HELP[0].upper()}{command.HELP[1:]}."
        parsers[name] = commands.add_parser(name, help=command.HELP, description=sentence)
        command.add_arguments(parsers[name])
    options, unknown = parser.parse_known_args(arguments)
    if unknown:  # by itself, argparse shows the usage without the command
        parsers[options.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    if options.command in _OTHERS:
        _OTHERS[options.command].run(parsers[options.command], options)
    else:
        demo.run(options)


if __name__ == "__main__":
    main()
