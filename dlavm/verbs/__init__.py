"""The verbs of the command line, one file a verb: `add_parser(sub)` says what it takes, `run(args)` does it."""

INTERRUPTED = 130  # exit codes as shells report SIGINT and SIGPIPE
BROKEN_PIPE = 141
