"""The two kinds of failure a user meets, each one readable message and an exit status."""


class PretextflowError(Exception):
    """Base of what is shown to the user as one message, without a traceback."""

    exit_status = 1


class RequestError(PretextflowError, ValueError):
    """The request was wrong: a key, a path, a value. Nothing was changed. Exit status 2."""

    exit_status = 2


class StageError(PretextflowError):
    """A stage could not do its work on valid input: budget exceeded, collapse, NaN. Exit status 1."""


class TryAgainError(StageError):
    """What a stage runs on stood still or died. The stage did nothing wrong, so that it is tried again."""
